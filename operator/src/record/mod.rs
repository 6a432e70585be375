//! A change of an item, as plain data: what a stream delivers, whichever client read it.

mod attribute;
mod change;
mod item;
mod sequence;
mod shard;

pub use attribute::{AttributeValue, KeyNames};
pub use change::{Change, EventName, UnixSeconds, UserIdentity};
pub use item::Item;
pub use sequence::SequenceNumber;
pub use shard::{Position, ShardId, StreamLabel};
