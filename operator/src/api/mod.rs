//! Custom resource `StreamNotifier`: spec, status and conditions. Plain data without I/O.

pub mod condition_types;
pub mod conditions;
pub mod reasons;
pub mod reference;
pub mod spec;
pub mod status;

pub use self::condition_types::{CONDITION_TYPES, ReadyState};
pub use self::conditions::{ConditionInput, build_conditions, data_gap_remaining};
pub use self::reasons::Reason;
pub use self::reference::conditions_page;
pub use self::spec::connections::{Connections, WebSocket};
pub use self::spec::delivery::{Delivery, OversizePolicy, SlowClientPolicy};
pub use self::spec::{
    ChangeKind, DataGapPolicy, KeyFilter, StartingPosition, StreamNotifier, StreamNotifierSpec,
};
pub use self::status::StreamNotifierStatus;
