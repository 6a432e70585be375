//! Tells connections of a change: every one stored at lookup time, in order per connection, none
//! held up by another.

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

pub use self::config::{Bounds, DeliveryConfig, Policy, SlowClient};
pub use self::connections::{
    Connections, ConnectionsError, ConnectionsErrorKind, RowPage, Segment, TableDescription,
};
pub use self::dead_letter::payload::From;
pub use self::dead_letter::queue::{DeadLetterError, DeadLetterErrorKind, DeadLetterQueue};
pub use self::dead_letter::sender::DeadLetters;
pub use self::dispatch::dispatcher::{Deliverer, Setup};
pub use self::dispatch::post_rate_limiter::PostLimits;
pub use self::gateway::{Answer, Gateway};
pub use self::lookup::Lookup;
pub use self::lookup::connections_config::Source;
pub use self::pipeline::Pipeline;
pub use self::task_group::Tasks;
