//! Delivery settings of one notifier.

use std::time::Duration;

use crate::delivery::lookup::connections_config::ConnectionsConfig;

/// Delivery settings of one notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    pub connections: ConnectionsConfig,
    /// Base URL of the WebSocket API.
    pub endpoint: String,
    pub policy: DeliveryPolicy,
    pub limits: DeliveryLimits,
}

/// When to drop a message that cannot be delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// Maximum age of a message. Time during which the circuit breaker is open does not count.
    pub max_age: Duration,
    /// Maximum number of failed attempts of a message. `None` means no limit.
    pub max_attempts: Option<u32>,
    pub slow_client: SlowClientAction,
}

/// Action for a client that does not read its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowClientAction {
    /// Its messages stay queued.
    Wait,
    /// A newer message for the same item replaces a queued one.
    Drop,
    /// The operator closes its connection.
    Disconnect,
}

/// Limits on queued messages and on posts in flight, for one notifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// Memory for the messages of records in flight, in KiB.
    pub memory_kib: u32,
    /// Maximum number of queued messages over all connections. It bounds only the queue entries,
    /// because the connections of a record share one body, and `memory_kib` bounds the bodies.
    pub max_queued_messages: usize,
    /// Memory for the queued messages of one connection, in KiB. If the connection is
    /// unresponsive, older messages beyond it are dropped. It must be far less than `memory_kib`,
    /// so that one connection cannot block the others.
    pub connection_kib: u32,
    /// Maximum number of posts in flight.
    pub max_posts: usize,
}

impl Default for DeliveryLimits {
    fn default() -> Self {
        Self {
            memory_kib: 16 * 1024,
            max_queued_messages: 65_536,
            connection_kib: 512,
            max_posts: 1_024,
        }
    }
}
