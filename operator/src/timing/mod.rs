//! Waits, rate limits and the service's clock. Every wait uses tokio's clock, so that tests can
//! pause time.

pub mod backoff;
pub mod rate_limiter;
pub mod service_clock;

pub use self::backoff::{Backoff, FailureTracker, JitterRng};
pub use self::rate_limiter::FifoRateLimiter;
pub use self::service_clock::ServiceClock;
