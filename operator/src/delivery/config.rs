//! How one notifier delivers its messages.

use std::time::Duration;

use crate::delivery::lookup::connections_config::Source;

/// Where messages go, and what bounds them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeliveryConfig {
    /// Where connections are stored.
    pub source: Source,
    /// The URL of the WebSocket API, which conditions name.
    pub endpoint: String,
    /// When to drop a message.
    pub policy: Policy,
    /// How much may be in memory and in flight.
    pub bounds: Bounds,
}

/// When to drop a message that is not delivered, as the spec says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How long a message is tried. Time in which the endpoint rejects every post does not count.
    pub longest_try: Duration,
    /// How many failed attempts a message has, if they are bounded.
    pub most_attempts: Option<u32>,
    /// What happens to messages for a client that does not read.
    pub slow_client: SlowClient,
}

/// What happens to messages for a client that does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlowClient {
    /// They wait for it.
    Wait,
    /// A newer message of the same item replaces one that waits.
    Drop,
    /// The client is disconnected.
    Disconnect,
}

/// How much of one notifier's work may be in memory and in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Messages of records in flight, in KiB.
    pub memory_kib: u32,
    /// Queued messages, over all connections. Their bodies count with their records, and all
    /// messages of one lookup share what is kept of its rows.
    pub waiting: usize,
    /// Queued messages of one connection, in KiB. Older ones are dropped beyond that if the
    /// connection takes none. Far less than `memory_kib`, so that one connection cannot block others.
    pub connection_kib: u32,
    /// Posts in flight.
    pub posts: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { memory_kib: 16 * 1024, waiting: 65_536, connection_kib: 512, posts: 1_024 }
    }
}
