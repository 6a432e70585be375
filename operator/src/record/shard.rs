//! A shard, and how far it is settled.

use std::fmt;

use super::SequenceNumber;

/// A shard's id, 28 to 65 characters.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_Shard.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub String);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far a shard is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Nothing yet; it is read from its oldest record.
    Start,
    /// Nothing yet; it is read from the moment reading began.
    Latest,
    /// Everything up to and with this record.
    After(SequenceNumber),
    /// Everything there is.
    Finished,
}
