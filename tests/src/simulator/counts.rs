//! Counts of calls, faults and transitions over all runs. A guarantee is tested only by what
//! happens.

use std::collections::BTreeMap;
use std::fmt;

#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    pub fn merge<'a>(&mut self, others: impl IntoIterator<Item = (&'a &'static str, &'a u64)>) {
        for (what, times) in others {
            *self.0.entry(what).or_default() += times;
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (&&'static str, &u64)> {
        self.0.iter()
    }

    /// The entries of [`EXPECTED`] that happened fewer times than this.
    pub fn rarer_than(&self, times: u64) -> Vec<&'static str> {
        let is_rare = |what: &&&'static str| self.0.get(**what).is_none_or(|it| *it < times);
        EXPECTED.iter().filter(is_rare).copied().collect()
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(what, times)| writeln!(f, "{times:>10}  {what}"))
    }
}

/// Everything that must happen often enough in a large number of runs.
const EXPECTED: &[&str] = &[
    "account throttled",
    "DescribeStream throttled",
    "ListStreams throttled",
    "stream request failed",
    "stream request timed out",
    "checkpoint written by someone else",
    "claim",
    "client disconnected",
    "closed shard shown as open",
    "connections index missing",
    "connections table: access denied",
    "connections table not found",
    "connections table unavailable",
    "connections table without credentials",
    "crash after DescribeStream",
    "crash after DescribeTable",
    "crash after GetRecords",
    "crash after GetShardIterator",
    "crash after ListStreams",
    "crash after a dead letter",
    "crash after a disconnect",
    "crash after a load",
    "crash after a lookup",
    "crash after a post",
    "crash after a row is read",
    "crash after a row's deletion",
    "crash after a save",
    "crash before DescribeStream",
    "crash before DescribeTable",
    "crash before GetRecords",
    "crash before GetShardIterator",
    "crash before ListStreams",
    "crash before a dead letter",
    "crash before a disconnect",
    "crash before a load",
    "crash before a lookup",
    "crash before a post",
    "crash before a row is read",
    "crash before a row's deletion",
    "crash before a save",
    "dead letter lost",
    "dead letter not sent",
    "dead letter rejected as too large",
    "dead letter sent",
    "dead letter sent, response lost",
    "disconnect failed",
    "empty page",
    "end of a shard with records",
    "end of a shard without records",
    "internal server error",
    "data gap, stopped",
    "data gap, continued from the oldest record",
    "gateway unreachable",
    "gateway without credentials",
    "iterator expired",
    "load failed",
    "load timed out",
    "lookup of several pages",
    "longer than an iterator lasts",
    "longer than records are kept",
    "message dropped: expired",
    "message dropped: attempts exhausted",
    "message dropped: overflow",
    "message dropped: superseded",
    "message dropped: disconnected",
    "open shard shown as closed",
    "post rejected with 403",
    "post rejected with 410",
    "post rejected with 429",
    "post rejected with 5xx",
    "post delivered, response lost",
    "post lost",
    "row deleted",
    "save in conflict",
    "save lost",
    "save lost, no response",
    "save done, response lost",
    "save done, no response",
    "sequence number is trimmed",
    "shard not listed: stale",
    "shard not listed: late",
    "shard not listed: missing",
    "shard rolled",
    "shard split",
    "short page",
    "store: access denied",
    "stream disabled",
    "stream enabled",
    "streams: access denied",
    "streams throttled for a period",
    "streams unavailable for a period",
    "streams without credentials",
    "throttled at random",
    "too many readers of a shard",
    "step: crash",
    "step: clock stop",
    "step: outage",
    "step: pause",
    "step: slow client",
    "step: stop",
    "step: takeover",
];
