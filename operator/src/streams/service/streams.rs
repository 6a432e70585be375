//! The trait [`Streams`]: the requests of the DynamoDB Streams API for one table, and their data.

use std::fmt;

use futures::future::BoxFuture;

use super::error::StreamError;
use crate::model::{
    KeySchema, Record, SequenceNumber, ShardId, StreamLabel, UnixSeconds, ViewType,
};

/// A shard in a response of DescribeStream. `EndingSequenceNumber` is omitted on purpose, because
/// some services show it on open shards. Only a page without a next iterator shows the end of a
/// shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shard {
    pub id: ShardId,
    /// Parent of the shard. It may no longer be listed.
    pub parent: Option<ShardId>,
}

/// One page of DescribeStream.
#[derive(Clone, Debug)]
pub struct StreamPage {
    pub status: StreamStatus,
    /// Images that the records contain.
    pub view_type: ViewType,
    /// Key attributes of the table.
    pub keys: KeySchema,
    /// Shards on this page.
    pub shards: Vec<Shard>,
    /// Last shard of this page, after which the next page begins. `None` on the last page.
    pub next_page: Option<ShardId>,
    /// The service's clock, rounded down to the second.
    pub service_time: UnixSeconds,
}

/// Status of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamStatus {
    /// The stream is being created.
    Enabling,
    /// Records arrive.
    Enabled,
    /// The stream is being disabled. Records can still arrive.
    Disabling,
    /// No more records arrive. The stream keeps its records for 24 hours.
    Disabled,
}

/// Shards that a response of DescribeStream must contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardFilter<'a> {
    /// All shards.
    All,
    /// At least the children of this shard. Some services list other shards too.
    ChildrenOf(&'a ShardId),
}

/// Position in a shard for which an iterator is requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IteratorStart {
    /// The oldest record in the shard.
    TrimHorizon,
    /// The first record that is not older than this time. A service without `AT_TIMESTAMP` returns
    /// an earlier one.
    At(UnixSeconds),
    /// The record after this sequence number.
    After(SequenceNumber),
}

impl fmt::Display for IteratorStart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TrimHorizon => f.write_str("trim horizon"),
            Self::At(time) => write!(f, "{time}"),
            Self::After(number) => write!(f, "after {number}"),
        }
    }
}

/// A position in a shard for GetRecords, valid for 15 minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIterator(pub String);

/// One page of GetRecords.
#[derive(Clone, Debug, Default)]
pub struct RecordPage {
    /// Records, in order. The last page of a shard can contain records too.
    pub records: Vec<Record>,
    /// Number of further records without keys, sequence number, time or a known event name.
    pub malformed: usize,
    /// Iterator of the next page. `None` at the end of a closed shard.
    pub next_iterator: Option<ShardIterator>,
    /// The service's clock, rounded down to the second, if the response contained it.
    pub service_time: Option<UnixSeconds>,
}

/// The streams of one table: the enabled one, and disabled ones for 24 hours.
pub trait Streams: fmt::Debug + Send + Sync + 'static {
    /// Lists every stream of the table, in any order.
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>>;

    /// Describes a stream. Returns one page of shards, from the shard after `after` on.
    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        filter: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>>;

    /// Requests an iterator of a shard.
    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        start: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>>;

    /// Reads the page at an iterator.
    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn displays_the_start_in_readable_form() {
        let after = IteratorStart::After(SequenceNumber::parse("100000000000000000001").unwrap());
        for (start, expected) in [
            (IteratorStart::TrimHorizon, "trim horizon"),
            (IteratorStart::At(UnixSeconds(1_795_400_967)), "2026-11-23T02:29:27Z"),
            (IteratorStart::At(UnixSeconds(i64::MAX)), "9223372036854775807"),
            (after, "after 100000000000000000001"),
        ] {
            assert_eq!(start.to_string(), expected);
        }
    }
}
