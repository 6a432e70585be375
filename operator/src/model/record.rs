//! A record of a stream.

use super::item::Item;
use super::sequence_number::SequenceNumber;
use super::unix_time::UnixSeconds;

/// A record of a stream: an item was created, changed or deleted.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_Record.html>
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Unique id of the record. Clients can use it to detect repeated messages.
    pub event_id: String,
    /// Kind of the change.
    pub event: EventName,
    /// Key attributes of the item.
    pub keys: Item,
    /// The item before the change. Empty if there was none, or the view type excludes it.
    pub old: Item,
    /// The item after the change. Empty if there is none, or the view type excludes it.
    pub new: Item,
    /// Position of the record in its shard.
    pub sequence_number: SequenceNumber,
    /// Time of the change, rounded down to the second.
    pub approximate_creation_time: UnixSeconds,
    /// The service that made the change, such as TTL. `None` if a client made it.
    pub user_identity: Option<UserIdentity>,
}

impl Record {
    /// Approximate memory use, in bytes.
    pub fn size(&self) -> usize {
        [&self.keys, &self.old, &self.new].map(Item::size).iter().sum()
    }
}

/// Kind of a change.
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
    /// The value of `eventName` in the AWS API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Insert => "INSERT",
            Self::Modify => "MODIFY",
            Self::Remove => "REMOVE",
        }
    }
}

/// The identity that made a change: `Service` and `dynamodb.amazonaws.com` for a TTL deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserIdentity {
    /// Type of the identity.
    pub identity_type: String,
    /// Name of the identity.
    pub principal_id: String,
}
