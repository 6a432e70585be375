//! Health, metrics, logs and the HTTP server of the process.
//!
//! Every log message is a method or function of this folder, so that no other code decides what is
//! logged. Item values and message bodies never are.

pub mod error_chain;
pub mod health;
pub mod log_throttle;
pub mod logging;
pub mod metrics;
pub mod notifier;
pub mod outcomes;
pub mod process;
pub mod server;

pub use self::error_chain::error_chain;
#[cfg(test)]
pub use self::health::assert_message_form;
pub use self::health::{Component, CountedEvent, Health, HealthSnapshot, Phase, Problem};
pub use self::logging::init_logging;
pub use self::metrics::Metrics;
pub use self::metrics::page::metrics_page;
pub use self::notifier::{NotifierTelemetry, QueuedGuard};
pub use self::outcomes::{DropReason, LookupKind, RecordCounts};
pub use self::process::{
    event_failed, operator_started, reconcile_failed, shutdown_started, unreadable_notifier,
    watch_failed,
};
#[cfg(feature = "local")]
pub use self::process::{local_row_not_deleted, websocket_not_closed};
pub use self::server::{ReadinessCheck, listen, serve};
pub use crate::api::Reason;
