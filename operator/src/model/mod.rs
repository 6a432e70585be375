//! Records of a stream, their attribute values, and positions in shards. Plain data without I/O.

pub mod images;
pub mod item;
pub mod key_schema;
pub mod record;
pub mod record_sink;
pub mod sequence_number;
pub mod shard;
pub mod unix_time;

pub use self::images::{Image, MissingImage, RequiredImages, ViewType};
pub use self::item::{AttributeValue, Item};
pub use self::key_schema::KeySchema;
pub use self::record::{EventName, Record, UserIdentity};
pub use self::record_sink::{BatchOutcome, RecordBatch, RecordProgress, RecordSink};
pub use self::sequence_number::SequenceNumber;
pub use self::shard::{Position, ShardId, ShardPositions, StreamLabel};
pub use self::unix_time::UnixSeconds;
