//! What the process tells about itself: health, metrics and log events, each a type with a name, so
//! that nothing is logged that is not meant to be. Item values and message bodies never are.

pub mod health;
pub mod logging;
pub mod metrics;
pub mod notifier;
pub mod process;
pub mod server;

pub use self::health::{Component, CountedEvent, Health, HealthSnapshot, Phase, Problem};
pub use self::logging::init_logging;
pub use self::metrics::Metrics;
pub use self::metrics::page::metrics_page;
pub use self::notifier::{
    Counts, DropReason, LookupKind, NotifierTelemetry, QueuedGuard, error_chain,
};
pub use self::process::{
    event_failed, local_row_left, local_socket_left_open, reconcile_failed, started, stopping,
    unreadable_notifier,
};
pub use self::server::{ReadinessCheck, serve};
