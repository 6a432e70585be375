//! A change of an item, as plain data: what a stream delivers, whichever client read it.

mod change;
mod images;
mod item;
mod key_schema;
mod record_sink;
mod sequence;
mod shard;
mod unix_time;

pub use change::{Change, EventName, UserIdentity};
pub use images::{Image, MissingImage, RequiredImages, ViewType};
pub use item::{AttributeValue, Item};
pub use key_schema::KeyNames;
pub use record_sink::{BatchOutcome, RecordBatch, RecordProgress, RecordSink};
pub use sequence::SequenceNumber;
pub use shard::{Position, ShardId, ShardPositions, StreamLabel};
pub use unix_time::UnixSeconds;
