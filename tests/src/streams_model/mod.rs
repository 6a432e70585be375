//! A simulated table with DynamoDB Streams: shards that roll and split, records that are trimmed,
//! iterators that expire, descriptions that are behind. It shares no code with the reader that it
//! tests, and everything that happens follows from its settings, its seed and what is asked of it.

mod describe;
mod http;
mod model;
mod read;
mod refusal;
mod settings;
mod shard;
mod stream;
mod streams;
mod throttle;

pub use describe::{DescribedShard, Description};
pub use http::{HttpStreams, date, respond};
pub use model::{Key, Model, ModelRecord};
pub use read::{From, Page};
pub use refusal::Refusal;
pub use settings::{Inconsistency, Settings, Throttling, View};
pub use shard::Shard;
pub use stream::{Status, Stream};
pub use streams::{Call, Clock, Fault, ModelStreams, Moment, change};
