//! Adapts the number of posts in flight to the responses of the endpoint.
//!
//! The limit grows while it is reached and the round-trip time stays low. It halves while many
//! posts fail.

use std::time::Duration;

use tokio::time::Instant;

use super::response_window::{ResponseWindow, WINDOW};

const INITIAL_LIMIT: usize = 256;
const MIN_LIMIT: usize = 16;

/// Maximum round-trip time at which the limit grows, as a multiple of the minimum. A longer one
/// shows that more posts would only wait.
const MAX_RTT_FACTOR: u32 = 2;

/// How long a minimum round-trip time stays valid.
const RTT_WINDOW: Duration = Duration::from_secs(30);

/// Adaptive limit on the posts in flight.
#[derive(Debug)]
pub struct AdaptiveConcurrency {
    limit: usize,
    max_limit: usize,
    /// Number of fast responses at the limit since it last changed.
    saturated_responses: usize,
    min_rtt: Duration,
    min_rtt_at: Instant,
    window: ResponseWindow,
    reduced_at: Option<Instant>,
}

impl AdaptiveConcurrency {
    pub fn new(max_limit: usize, now: Instant) -> Self {
        Self {
            limit: INITIAL_LIMIT.min(max_limit),
            max_limit,
            saturated_responses: 0,
            min_rtt: Duration::MAX,
            min_rtt_at: now,
            window: ResponseWindow::new(now),
            reduced_at: None,
        }
    }

    /// Maximum number of posts in flight.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Records a usable response, and whether the limit was reached meanwhile.
    pub fn record_response(&mut self, rtt: Duration, is_saturated: bool, now: Instant) {
        self.window.record(false, now);
        if rtt <= self.min_rtt || now.duration_since(self.min_rtt_at) >= RTT_WINDOW {
            (self.min_rtt, self.min_rtt_at) = (rtt, now);
        }
        if !is_saturated || rtt > self.min_rtt * MAX_RTT_FACTOR {
            return;
        }
        self.saturated_responses += 1;
        // The limit grows by a quarter once as many posts have succeeded as it allows.
        if self.saturated_responses >= self.limit {
            self.limit = (self.limit + self.limit / 4).min(self.max_limit);
            self.saturated_responses = 0;
        }
    }

    /// Records a post without a usable response: a timeout, or an error of the service.
    pub fn record_failure(&mut self, now: Instant) {
        // Posts in flight together also fail together, so they reduce the limit only once.
        let is_new = self.reduced_at.is_none_or(|at| now.duration_since(at) >= WINDOW);
        if self.window.record(true, now) && is_new {
            self.reduced_at = Some(now);
            self.limit = (self.limit / 2).max(MIN_LIMIT.min(self.max_limit));
            self.window = ResponseWindow::new(now);
            self.saturated_responses = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn grows_only_while_saturated_and_fast() {
        let now = Instant::now();
        let mut concurrency = AdaptiveConcurrency::new(1024, now);
        for _ in 0..10_000 {
            concurrency.record_response(RTT, false, now);
        }
        assert_eq!(concurrency.limit(), INITIAL_LIMIT, "grew although not saturated");
        for _ in 0..10_000 {
            concurrency.record_response(RTT * 3, true, now);
        }
        assert_eq!(concurrency.limit(), INITIAL_LIMIT, "grew although slow");
        for _ in 0..10_000 {
            concurrency.record_response(RTT, true, now);
        }
        assert_eq!(concurrency.limit(), 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn shrinks_once_per_window_while_many_posts_fail() {
        let now = Instant::now();
        let mut concurrency = AdaptiveConcurrency::new(1024, now);
        for _ in 0..4 {
            concurrency.record_failure(now);
        }
        assert_eq!(concurrency.limit(), INITIAL_LIMIT, "shrank after few failures");
        for _ in 0..1000 {
            concurrency.record_failure(now);
        }
        assert_eq!(concurrency.limit(), INITIAL_LIMIT / 2, "shrank twice in one window");
        for second in 1..10 {
            (0..10).for_each(|_| concurrency.record_failure(now + WINDOW * second));
        }
        assert_eq!(concurrency.limit(), MIN_LIMIT);
    }
}
