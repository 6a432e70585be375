//! Reads a stream: every shard, in order, a child only after its parent, nothing left out.

mod lineage;
mod reader;

use std::future::Future;

use crate::record::{Change, KeyNames, SequenceNumber, ShardId, UnixSeconds};

pub use lineage::{Plan, initial, learn, plan};
pub use reader::{Read, ShardReader};

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
    /// Which images records carry.
    pub view: ViewType,
    /// The table's key attributes.
    pub keys: KeyNames,
    /// The shards on this page.
    pub shards: Vec<Shard>,
    /// Where the next page begins, if there is one.
    pub next: Option<ShardId>,
    /// The service's clock, floored to the second.
    pub service_time: UnixSeconds,
}

/// Which images a stream's records carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewType {
    /// Keys only.
    KeysOnly,
    /// Keys and the item after.
    NewImage,
    /// Keys and the item before.
    OldImage,
    /// Keys and both.
    NewAndOldImages,
}

impl ViewType {
    /// Whether records carry the item as it was.
    pub fn has_old(self) -> bool {
        matches!(self, Self::OldImage | Self::NewAndOldImages)
    }

    /// Whether records carry the item as it is.
    pub fn has_new(self) -> bool {
        matches!(self, Self::NewImage | Self::NewAndOldImages)
    }

    /// The type as AWS spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeysOnly => "KEYS_ONLY",
            Self::NewImage => "NEW_IMAGE",
            Self::OldImage => "OLD_IMAGE",
            Self::NewAndOldImages => "NEW_AND_OLD_IMAGES",
        }
    }
}

/// Where in a shard an iterator is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReadFrom {
    /// The oldest record there is.
    Start,
    /// The first record not older than this; where a service cannot do that, an earlier one.
    At(UnixSeconds),
    /// The record after this one.
    After(SequenceNumber),
}

/// A place in a shard that GetRecords reads from; good for 15 minutes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardIterator(pub String);

/// One page of GetRecords.
#[derive(Clone, Debug, Default)]
pub struct RecordPage {
    /// The records, in order; there may be some although `next` is `None`.
    pub changes: Vec<Change>,
    /// Where the next page begins; `None` at the end of a closed shard.
    pub next: Option<ShardIterator>,
}

/// One stream of one table.
pub trait Streams: Send + Sync + 'static {
    /// One page of the stream's description, from the shard after `after`.
    fn describe(
        &self,
        after: Option<&ShardId>,
    ) -> impl Future<Output = Result<StreamPage, StreamError>> + Send;

    /// An iterator of a shard.
    fn iterator(
        &self,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> impl Future<Output = Result<ShardIterator, StreamError>> + Send;

    /// The page at an iterator.
    fn records(
        &self,
        iterator: &ShardIterator,
    ) -> impl Future<Output = Result<RecordPage, StreamError>> + Send;
}

/// Why a call to a stream failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed: {kind}")]
pub struct StreamError {
    /// The call, by its IAM name, such as `dynamodb:GetRecords`.
    pub action: &'static str,
    /// What it means.
    pub kind: StreamErrorKind,
    /// What the client said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a failed call to a stream means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamErrorKind {
    /// The iterator is older than 15 minutes.
    #[error("the iterator has expired")]
    ExpiredIterator,
    /// The records asked for are older than 24 hours and gone.
    #[error("the records asked for are no longer kept")]
    Trimmed,
    /// There is no such stream or shard (any more).
    #[error("there is no such stream or shard")]
    NotFound,
    /// The identity lacks the right.
    #[error("access denied")]
    AccessDenied,
    /// The process has no identity.
    #[error("no AWS credentials")]
    NoCredentials,
    /// Too many calls, or too many readers.
    #[error("throttled")]
    Throttled,
    /// The request itself is wrong.
    #[error("the request was refused as invalid")]
    Invalid,
    /// Anything that may pass: the network, a fault of the service.
    #[error("no usable answer")]
    Unavailable,
}
