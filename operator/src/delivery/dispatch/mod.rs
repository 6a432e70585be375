//! Posts queued messages: in order for each connection, and concurrently for different ones.

pub mod adaptive_concurrency;
pub mod circuit_breaker;
pub mod connection_queues;
pub mod dispatcher;
pub mod mass_deletion_guard;
pub mod outcome;
pub mod post_rate_limiter;
pub mod problems;
pub mod response_window;
pub mod retry;
