//! How many posts are under way at once: more while that is of use, fewer while many fail. Pure.

use std::time::Duration;

use tokio::time::Instant;

use super::post_rate_limiter::{ThrottleWindow, WINDOW};

const INITIAL_LIMIT: usize = 256;
const MIN_LIMIT: usize = 16;

/// An answer that takes longer than the fastest by this factor says that more would only wait.
const MAX_RTT_FACTOR: u32 = 2;

/// The fastest answer of so long counts.
const RTT_WINDOW: Duration = Duration::from_secs(30);

/// How many posts may be under way.
#[derive(Debug)]
pub struct AdaptiveConcurrency {
    limit: usize,
    max_limit: usize,
    /// Answers that came while all places were taken, since the limit grew last.
    saturated_responses: usize,
    min_rtt: Duration,
    min_rtt_at: Instant,
    window: ThrottleWindow,
    reduced_at: Option<Instant>,
}

impl AdaptiveConcurrency {
    /// Never more than this many.
    pub fn new(max_limit: usize, now: Instant) -> Self {
        let limit = INITIAL_LIMIT.min(max_limit);
        let window = ThrottleWindow::new(now);
        let (min_rtt, min_rtt_at) = (Duration::MAX, now);
        Self {
            limit,
            max_limit,
            saturated_responses: 0,
            min_rtt,
            min_rtt_at,
            window,
            reduced_at: None,
        }
    }

    /// How many may be under way now.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// An answer took so long, while all places were taken or not.
    pub fn record_response(&mut self, took: Duration, is_full: bool, now: Instant) {
        self.window.record(false, now);
        if took <= self.min_rtt || now.duration_since(self.min_rtt_at) >= RTT_WINDOW {
            (self.min_rtt, self.min_rtt_at) = (took, now);
        }
        if !is_full || took > self.min_rtt * MAX_RTT_FACTOR {
            return;
        }
        self.saturated_responses += 1;
        // A quarter more each time that all of them have come back.
        if self.saturated_responses >= self.limit {
            self.limit = (self.limit + self.limit / 4).min(self.max_limit);
            self.saturated_responses = 0;
        }
    }

    /// No usable answer came: none in time, or one that the service failed at.
    pub fn record_failure(&mut self, now: Instant) {
        // Those that were under way together fail together: that is one sign, not many.
        let is_new = self.reduced_at.is_none_or(|at| now.duration_since(at) >= WINDOW);
        if self.window.record(true, now) && is_new {
            self.reduced_at = Some(now);
            self.limit = (self.limit / 2).max(MIN_LIMIT.min(self.max_limit));
            self.window = ThrottleWindow::new(now);
            self.saturated_responses = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(10);

    #[tokio::test(start_paused = true)]
    async fn it_grows_only_while_more_are_wanted_and_of_use() {
        let now = Instant::now();
        let mut flight = AdaptiveConcurrency::new(1024, now);
        for _ in 0..10_000 {
            flight.record_response(FAST, false, now);
        }
        assert_eq!(flight.limit(), INITIAL_LIMIT, "nobody waits");
        for _ in 0..10_000 {
            flight.record_response(FAST * 3, true, now);
        }
        assert_eq!(flight.limit(), INITIAL_LIMIT, "more would only wait");
        for _ in 0..10_000 {
            flight.record_response(FAST, true, now);
        }
        assert_eq!(flight.limit(), 1024);
    }

    #[tokio::test(start_paused = true)]
    async fn it_shrinks_while_many_fail_and_not_for_one() {
        let now = Instant::now();
        let mut flight = AdaptiveConcurrency::new(1024, now);
        for _ in 0..4 {
            flight.record_failure(now);
        }
        assert_eq!(flight.limit(), INITIAL_LIMIT);
        for _ in 0..1000 {
            flight.record_failure(now);
        }
        assert_eq!(flight.limit(), INITIAL_LIMIT / 2, "together they are one sign");
        for second in 1..10 {
            (0..10).for_each(|_| flight.record_failure(now + WINDOW * second));
        }
        assert_eq!(flight.limit(), MIN_LIMIT);
    }
}
