//! A change of an item, as plain data: what a stream delivers, whichever client read it.

mod attribute;
mod change;
mod images;
mod item;
mod record_sink;
mod sequence;
mod shard;

pub use attribute::{AttributeValue, KeyNames};
pub use change::{Change, EventName, UnixSeconds, UserIdentity};
pub use images::{Image, MissingImage, RequiredImages, ViewType};
pub use item::Item;
pub use record_sink::{BatchOutcome, RecordBatch, RecordProgress, RecordSink};
pub use sequence::SequenceNumber;
pub use shard::{Position, ShardId, StreamLabel};
