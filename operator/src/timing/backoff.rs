//! Exponential backoff with jitter, and the time since something last worked.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Random numbers that spread waits. They are seeded, so that a simulation can be repeated.
#[derive(Debug)]
pub struct JitterRng(Mutex<fastrand::Rng>);

impl JitterRng {
    /// Generates the same numbers for the same `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    /// The next number in 0..1.
    pub fn fraction(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }
}

/// A wait that doubles after each use, up to a maximum.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `initial`, and grows up to `max`.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, next: initial }
    }

    /// The next wait, with jitter: 50 % to 100 % of the current backoff.
    pub fn next_wait(&mut self, rng: &JitterRng) -> Duration {
        let wait = self.next.mul_f64(0.5 + rng.fraction() / 2.0);
        self.next = (self.next * 2).min(self.max);
        wait
    }

    /// Starts from the initial wait again.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

/// A problem that can pass by itself is reported after it has lasted this long.
const REPORT_AFTER: Duration = Duration::from_secs(60);

/// Time and backoff of an operation that is retried until it succeeds.
#[derive(Clone, Debug)]
pub struct FailureTracker {
    since: Option<Instant>,
    backoff: Backoff,
}

impl FailureTracker {
    /// No failure yet. Waits start at about 100 ms, and grow up to `max_wait`.
    pub const fn new(max_wait: Duration) -> Self {
        Self { since: None, backoff: Backoff::new(Duration::from_millis(100), max_wait) }
    }

    /// Records a failure. Returns `true` once the operation has failed for 60 s, which is when the
    /// problem should be reported.
    pub fn record_failure(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= REPORT_AFTER
    }

    /// How long to wait before the next attempt.
    pub fn next_wait(&mut self, rng: &JitterRng) -> Duration {
        self.backoff.next_wait(rng)
    }

    /// Records a success, which resets the time and the backoff.
    pub fn record_success(&mut self) {
        self.since = None;
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_its_maximum_and_starts_again_after_a_reset() {
        let rng = JitterRng::seeded(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for max in [100, 200, 350, 350] {
            let wait = backoff.next_wait(&rng).as_millis();
            assert!((max / 2..=max).contains(&wait), "{wait} of {max}");
        }
        backoff.reset();
        assert!(backoff.next_wait(&rng).as_millis() <= 100);
    }
}
