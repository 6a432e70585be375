//! The delivery pipeline: posts a message to every matching connection for each record.
//!
//! A connection receives its messages in order, and a slow or closed connection delays no other.
//! A record settles once every one of its messages is delivered or dropped.

pub mod ack;
pub mod config;
pub mod connections;
pub mod dead_letter;
pub mod dispatch;
pub mod gateway;
pub mod lookup;
pub mod message;
pub mod pipeline;
pub mod task_group;

pub use self::config::{DeliveryConfig, DeliveryLimits, DeliveryPolicy, SlowClientAction};
pub use self::connections::{
    ConnectionsError, ConnectionsErrorKind, ConnectionsTable, RowPage, Segment, TableDescription,
};
pub use self::dead_letter::payload::DeadLetterSource;
pub use self::dead_letter::queue::{DeadLetterError, DeadLetterErrorKind, DeadLetterQueue};
pub use self::dead_letter::sender::DeadLetterSender;
pub use self::dispatch::dispatcher::{Dispatcher, DispatcherConfig};
pub use self::dispatch::post_rate_limiter::PostRateLimiter;
pub use self::gateway::{Gateway, PostResponse};
pub use self::lookup::Lookup;
pub use self::lookup::connections_config::ConnectionsConfig;
pub use self::pipeline::Pipeline;
pub use self::task_group::TaskGroup;
