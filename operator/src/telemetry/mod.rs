//! What the process tells about itself: health, metrics and log events, each a type with a name, so
//! that nothing is logged that is not meant to be. Item values and message bodies never are.

mod events;
mod health;
mod http;
mod logging;
mod metrics;
mod notifier;

pub use crate::api::Reason;
pub use events::{event_failed, reconcile_failed, started, stopping, unreadable_notifier};
#[cfg(feature = "local")]
pub use events::{local_row_left, local_socket_left_open};
#[cfg(test)]
pub use health::assert_message_form;
pub use health::{Happening, Health, Part, Phase, Picture, Trouble};
pub use http::{Readiness, serve};
pub use logging::init as init_logging;
pub use metrics::{Metrics, metrics_page};
pub use notifier::{Counts, Dropped, LookupKind, NotifierTelemetry, Waiting, chain};
