//! Scripted neighbours of a worker, in memory and on tokio's paused clock: what a test wrote down is
//! what the worker finds, and everything it asked is noted.

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
pub use streams::{Call, FakeStreams, NOW, change, number, shard_id};
pub use worker::{STREAM, Worker, job, spec, worker_spec};
