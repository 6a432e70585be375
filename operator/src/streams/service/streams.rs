//! Reads a stream: every shard, in order, a child only after its parent, nothing left out.

use std::fmt;

use futures::future::BoxFuture;

use super::error::StreamError;
use crate::model::{
    KeySchema, Record, SequenceNumber, ShardId, StreamLabel, UnixSeconds, ViewType,
};

/// A shard as DescribeStream lists it. Its `EndingSequenceNumber` is left out on purpose: only a
/// page without a next iterator tells that a shard is at its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    /// The shard.
    pub id: ShardId,
    /// Its parent, which may no longer be listed.
    pub parent: Option<ShardId>,
}

/// One page of DescribeStream.
#[derive(Clone, Debug)]
pub struct StreamPage {
    /// Whether changes still arrive.
    pub status: StreamStatus,
    /// Which images records carry.
    pub view_type: ViewType,
    /// The table's key attributes.
    pub keys: KeySchema,
    /// The shards on this page.
    pub shards: Vec<Shard>,
    /// Where the next page begins, if there is one.
    pub next_page: Option<ShardId>,
    /// The service's clock, floored to the second.
    pub service_time: UnixSeconds,
}

/// Whether changes still arrive in a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// It is being made.
    Enabling,
    /// They do.
    Enabled,
    /// It is being closed.
    Disabling,
    /// They do not; what it has is kept for 24 hours.
    Disabled,
}

/// Which shards a description is to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardFilter<'a> {
    /// All of them.
    All,
    /// The children of this one, at least: some services list others too.
    ChildrenOf(&'a ShardId),
}

/// Where in a shard an iterator is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IteratorStart {
    /// The oldest record there is.
    Start,
    /// The first record not older than this; where a service cannot do that, an earlier one.
    At(UnixSeconds),
    /// The record after this one.
    After(SequenceNumber),
}

impl fmt::Display for IteratorStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Start => f.write_str("start"),
            Self::At(moment) => write!(f, "{moment}"),
            Self::After(number) => write!(f, "after {number}"),
        }
    }
}

/// A place in a shard that GetRecords reads from; good for 15 minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIterator(pub String);

/// One page of GetRecords.
#[derive(Clone, Debug, Default)]
pub struct RecordPage {
    /// The records, in order; there may be some although `next` is `None`.
    pub records: Vec<Record>,
    /// How many records more there were that lack what a record must have: keys, a sequence number,
    /// a time, a kind of change that is known.
    pub malformed: usize,
    /// Where the next page begins; `None` at the end of a closed shard.
    pub next_iterator: Option<ShardIterator>,
    /// The service's clock, floored to the second, if it told.
    pub service_time: Option<UnixSeconds>,
}

/// The streams of one table: one that is enabled, and for 24 hours those before it.
pub trait Streams: fmt::Debug + Send + Sync + 'static {
    /// Every stream that there is, in any order.
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>>;

    /// One page of a stream's description, from the shard after `after`.
    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>>;

    /// An iterator of a shard.
    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>>;

    /// The page at an iterator.
    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_reading_begins_is_told_as_a_person_reads_it() {
        let after = IteratorStart::After(SequenceNumber::parse("100000000000000000001").unwrap());
        for (from, told) in [
            (IteratorStart::Start, "start"),
            (IteratorStart::At(UnixSeconds(1_795_400_967)), "2026-11-23T02:29:27Z"),
            (IteratorStart::At(UnixSeconds(i64::MAX)), "9223372036854775807"),
            (after, "after 100000000000000000001"),
        ] {
            assert_eq!(from.to_string(), told);
        }
    }
}
