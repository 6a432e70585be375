//! The custom resource: what a user writes and what they read back. Plain data, no I/O.

mod conditions;
mod reasons;
mod reference;
mod spec;
mod status;

pub use conditions::{CONDITION_TYPES, ConditionInput, ReadyState, conditions, data_gap_remaining};
pub use reasons::{Reason, Use};
pub use reference::conditions_page;
pub use spec::{
    Connections, Delivery, Event, KeyFilter, OnGap, Oversize, SlowClient, StartingPosition,
    StreamNotifier, StreamNotifierSpec, WebSocket,
};
pub use status::StreamNotifierStatus;
