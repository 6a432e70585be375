//! How often everything happened, over all runs: what never happens proves nothing.

use std::collections::BTreeMap;
use std::fmt;

/// How often each thing happened.
#[derive(Clone, Debug, Default)]
pub struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    /// It happened once more.
    pub fn add(&mut self, what: &'static str) {
        *self.0.entry(what).or_default() += 1;
    }

    /// All of this happened too.
    pub fn merge<'a>(&mut self, others: impl IntoIterator<Item = (&'a &'static str, &'a u64)>) {
        for (what, times) in others {
            *self.0.entry(what).or_default() += times;
        }
    }

    /// Each, with how often.
    pub fn iter(&self) -> impl Iterator<Item = (&&'static str, &u64)> {
        self.0.iter()
    }

    /// What of [`EXPECTED`] happened fewer than so many times.
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

/// Everything that has to happen: calls, faults and transitions.
const EXPECTED: &[&str] = &[
    "account throttled",
    "DescribeStream throttled",
    "ListStreams throttled",
    "call to the streams fails",
    "call to the streams hangs",
    "checkpoint touched by somebody else",
    "claim",
    "client disconnected",
    "closed shard shown as open",
    "connections index taken away",
    "connections table denied",
    "connections table not found",
    "connections table unavailable",
    "connections table without credentials",
    "crash after DescribeStream",
    "crash after DescribeTable",
    "crash after GetRecords",
    "crash after GetShardIterator",
    "crash after ListStreams",
    "crash after a dead letter",
    "crash after a disconnection",
    "crash after a load",
    "crash after a lookup",
    "crash after a post",
    "crash after a row is read again",
    "crash after a row's deletion",
    "crash after a save",
    "crash before DescribeStream",
    "crash before DescribeTable",
    "crash before GetRecords",
    "crash before GetShardIterator",
    "crash before ListStreams",
    "crash before a dead letter",
    "crash before a disconnection",
    "crash before a load",
    "crash before a lookup",
    "crash before a post",
    "crash before a row is read again",
    "crash before a row's deletion",
    "crash before a save",
    "dead letter lost",
    "dead letter not taken",
    "dead letter refused as too large",
    "dead letter sent",
    "dead letter sent, answer lost",
    "disconnection fails",
    "empty page",
    "end of a shard with records",
    "end of a shard without records",
    "fault of the service",
    "gap, and a stop",
    "gap, and on from the oldest left",
    "gateway unreachable",
    "gateway without credentials",
    "iterator expired",
    "load fails",
    "load hangs",
    "lookup of several pages",
    "longer than an iterator lasts",
    "longer than records are kept",
    "message expired",
    "message given up after its attempts",
    "message overflowed",
    "message superseded",
    "message to a client that was disconnected",
    "open shard shown with an end",
    "post answered 403",
    "post answered 410",
    "post answered 429",
    "post answered 5xx",
    "post delivered, answer lost",
    "post lost",
    "row deleted",
    "save in conflict",
    "save lost",
    "save lost, no answer",
    "saved, answer lost",
    "saved, no answer",
    "sequence number is trimmed",
    "shard not listed: as it was before",
    "shard not listed: late",
    "shard not listed: missing",
    "shard rolled",
    "shard split",
    "short page",
    "store denied",
    "stream disabled",
    "stream enabled",
    "streams denied",
    "streams throttled for a while",
    "streams unavailable for a while",
    "streams without credentials",
    "throttled at random",
    "too many readers of a shard",
    "step: crash",
    "step: freeze",
    "step: outage",
    "step: pause",
    "step: slow client",
    "step: stop",
    "step: takeover",
];
