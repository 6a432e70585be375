//! StreamNotifier: tells WebSocket clients, in real time, that a DynamoDB item has changed.
//!
//! The folders tell the way of a change: `stream` reads it, `notifier` judges it, `delivery` posts
//! it, `checkpoint` remembers it; `worker` runs the four for one resource. See
//! `docs/architecture.md`.

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
