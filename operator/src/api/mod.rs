//! The custom resource: what a user writes and what they read back. Plain data, no I/O.

pub mod conditions;
pub mod reasons;
pub mod reference;
pub mod spec;
pub mod status;

pub use self::conditions::{
    CONDITION_TYPES, ConditionInput, ReadyState, build_conditions, data_gap_remaining,
};
pub use self::reasons::Reason;
pub use self::reference::conditions_page;
pub use self::spec::{
    ChangeKind, Connections, DataGapPolicy, Delivery, KeyFilter, OversizePolicy, SlowClientPolicy,
    StartingPosition, StreamNotifier, StreamNotifierSpec, WebSocket,
};
pub use self::status::StreamNotifierStatus;
