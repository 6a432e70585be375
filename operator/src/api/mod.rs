//! The custom resource: what a user writes and what they read back. Plain data, no I/O.

mod conditions;
mod spec;
mod status;

pub use conditions::{CONDITION_TYPES, Readiness, Ready, conditions, gap_told_for};
pub use spec::{
    Connections, Delivery, Event, KeyFilter, OnGap, Oversize, SlowClient, StartingPosition,
    StreamNotifier, StreamNotifierSpec, WebSocket,
};
pub use status::StreamNotifierStatus;
