//! The DynamoDB Streams consumer. It reads every shard in order, and passes pages of records to a
//! [`RecordSink`](crate::model::RecordSink).

pub mod config;
pub mod consumer;
pub mod context;
pub mod coordinator;
pub mod iterator_age;
pub mod lineage;
pub mod listing;
pub mod poll_interval;
pub mod problems;
pub mod retention;
pub mod service;
pub mod shard_consumer;
pub mod shard_reader;

pub use self::config::{ConsumerConfig, InitialPosition, StreamSource};
pub use self::consumer::{ConsumerStart, StreamConsumer};
pub use self::listing::Listing;
pub use self::listing::initial_listing::{ListingParams, list_until_usable};
pub use self::service::error::{StreamError, StreamErrorKind};
pub use self::service::rate_limited::RateLimitedStreams;
pub use self::service::rate_limits::{CallRateLimiter, StreamRateLimits};
pub use self::service::streams::{
    IteratorStart, RecordPage, Shard, ShardFilter, ShardIterator, StreamPage, StreamStatus, Streams,
};
pub use self::shard_reader::ShardReader;
