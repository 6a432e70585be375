//! One record of a stream.

use super::item::Item;
use super::sequence_number::SequenceNumber;
use super::unix_time::UnixSeconds;

/// One record of a stream: an item was created, changed or deleted.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_Record.html>
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Unique per record; clients can tell repeats by it.
    pub event_id: String,
    /// What happened.
    pub event: EventName,
    /// The item's key attributes.
    pub keys: Item,
    /// The item before; empty where there was none or the stream's view type leaves it out.
    pub old: Item,
    /// The item after; empty where there is none or the stream's view type leaves it out.
    pub new: Item,
    /// The record's place in its shard.
    pub sequence_number: SequenceNumber,
    /// When the change was made, rounded down to the second.
    pub approximate_creation_time: UnixSeconds,
    /// Who made the change, where a service did (TTL).
    pub user_identity: Option<UserIdentity>,
}

impl Record {
    /// Roughly how many bytes it takes.
    pub fn size(&self) -> usize {
        [&self.keys, &self.old, &self.new].map(Item::size).iter().sum()
    }
}

/// What happened to an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventName {
    /// An item was created.
    Insert,
    /// An item was changed.
    Modify,
    /// An item was deleted.
    Remove,
}

impl EventName {
    /// The name as AWS spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Modify => "MODIFY",
            Self::Remove => "REMOVE",
        }
    }
}

/// Who made a change: `Service` and `dynamodb.amazonaws.com` where it was TTL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserIdentity {
    /// The type of identity.
    pub identity_type: String,
    /// The identity.
    pub principal_id: String,
}
