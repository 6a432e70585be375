//! Model of a DynamoDB table with its streams. Shards roll and split, records are trimmed,
//! iterators expire, and listings can be stale.
//!
//! It shares no code with the reader that it tests. Everything follows from its settings, its seed
//! and the requests that it receives.

mod describe;
mod http;
mod model;
mod read;
mod service_error;
mod settings;
mod shard;
mod stream;
mod streams;
mod throttle;

pub use describe::{DescribedShard, Description};
pub use http::{HttpStreams, http_date, respond};
pub use model::{Key, Model, ModelRecord};
pub use read::{IteratorPosition, Page};
pub use service_error::ServiceError;
pub use settings::{Inconsistency, Settings, StreamViewType, Throttling};
pub use shard::Shard;
pub use stream::{Status, Stream};
pub use streams::{Clock, Fault, FaultTiming, ModelStreams, Request, to_record};
