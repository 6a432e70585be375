//! Pushes DynamoDB item changes to WebSocket clients in real time.
//!
//! The folders follow the path of a record: `streams` reads it, `rules` evaluates it, `delivery`
//! posts its messages, and `checkpoint` stores the position. `worker` runs them for one resource.
//! See `docs/architecture.md`.

#[macro_use]
pub mod planted_faults;
pub mod api;
pub mod aws;
pub mod checkpoint;
pub mod cli;
pub mod controller;
pub mod delivery;
#[cfg(feature = "local")]
pub mod local;
pub mod model;
pub mod rules;
pub mod streams;
pub mod telemetry;
pub mod timing;
pub mod worker;
