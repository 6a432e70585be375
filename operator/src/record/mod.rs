//! A change of an item, as plain data: what a stream delivers, whichever client read it.

mod attribute;
mod change;
mod sequence;
mod shard;

pub use attribute::{AttributeValue, Item, KeyNames};
pub use change::{Change, EventName, UnixSeconds, UserIdentity};
pub use sequence::SequenceNumber;
pub use shard::{Position, ShardId, StreamLabel};
