//! How one notifier delivers its messages.

use std::time::Duration;

use crate::delivery::lookup::connections_config::ConnectionsConfig;

/// Where messages go, and what bounds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// Where connections are stored.
    pub connections: ConnectionsConfig,
    /// The URL of the WebSocket API, which conditions name.
    pub endpoint: String,
    /// When to drop a message.
    pub policy: DeliveryPolicy,
    /// How much may be in memory and in flight.
    pub limits: DeliveryLimits,
}

/// When to drop a message that is not delivered, as the spec says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryPolicy {
    /// How long a message is tried. Time in which the endpoint rejects every post does not count.
    pub max_age: Duration,
    /// How many failed attempts a message has, if they are bounded.
    pub max_attempts: Option<u32>,
    /// What happens to messages for a client that does not read.
    pub slow_client: SlowClientAction,
}

/// What happens to messages for a client that does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowClientAction {
    /// They wait for it.
    Wait,
    /// A newer message of the same item replaces one that waits.
    Drop,
    /// The client is disconnected.
    Disconnect,
}

/// How much of one notifier's work may be in memory and in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeliveryLimits {
    /// Messages of records in flight, in KiB.
    pub memory_kib: u32,
    /// Queued messages, over all connections. Their bodies count with their records, and all
    /// messages of one lookup share what is kept of its rows.
    pub max_queued_messages: usize,
    /// Queued messages of one connection, in KiB. Older ones are dropped beyond that if the
    /// connection takes none. Far less than `memory_kib`, so that one connection cannot block others.
    pub connection_kib: u32,
    /// Posts in flight.
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
