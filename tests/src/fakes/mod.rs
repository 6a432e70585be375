//! Fakes of a worker's backends, in memory and on tokio's paused clock. Each one returns what a
//! test scripts, and records the requests.

mod connections;
mod gateway;
mod queue;
mod store;
mod streams;
mod worker;

pub use connections::FakeConnections;
pub use gateway::{FakeGateway, Post};
pub use queue::{FakeQueue, QUEUE};
pub use store::MemoryStore;
pub use streams::{Call, FakeStreams, NOW, new_record, sequence_number, shard_id};
pub use worker::{STREAM, Worker, metric_value, spec, worker_config, worker_spec};
