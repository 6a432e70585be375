//! A change of an item, as plain data: what a stream delivers, whichever client read it.

mod attribute;
mod change;
mod sequence;

pub use attribute::{AttributeValue, Item};
pub use change::{Change, EventName, KeyNames, UnixSeconds, UserIdentity};
pub use sequence::SequenceNumber;
