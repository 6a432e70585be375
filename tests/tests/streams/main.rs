//! The worker reads the streams of a table: on scripted or simulated streams, with tokio's paused clock.
//!
//! These tests describe single situations. `simulation.rs` combines them at random.

mod data_gaps;
mod fixture;
mod late_listings;
mod overridden_streams;
mod read_limits;
mod readiness;
mod shard_reading;
mod shard_reading_checkpoint;
mod starting_position;
mod successive_streams;
