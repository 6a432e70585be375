//! Waits between tries: doubling, jittered, bounded; and how long something has failed.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// The randomness that spreads waits; seeded, so that a run can be repeated.
#[derive(Debug)]
pub struct JitterRng(Mutex<fastrand::Rng>);

impl JitterRng {
    /// Randomness that follows from `seed`.
    pub fn seeded(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }

    /// Something in 0..1.
    pub fn fraction(&self) -> f64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).f64()
    }
}

/// A growing wait.
#[derive(Clone, Debug)]
pub struct Backoff {
    initial: Duration,
    max: Duration,
    next: Duration,
}

impl Backoff {
    /// Waits from about `first` to about `most`.
    pub const fn new(initial: Duration, max: Duration) -> Self {
        Self { initial, max, next: initial }
    }

    /// The next wait: between half and all of the current one.
    pub fn next_wait(&mut self, random: &JitterRng) -> Duration {
        let wait = self.next.mul_f64(0.5 + random.fraction() / 2.0);
        self.next = (self.next * 2).min(self.max);
        wait
    }

    /// Begins anew.
    pub fn reset(&mut self) {
        self.next = self.initial;
    }
}

/// Trouble that may pass by itself is told once it has lasted this long.
const REPORT_AFTER: Duration = Duration::from_secs(60);

/// Something that is tried until it works.
#[derive(Clone, Debug)]
pub struct FailureTracker {
    since: Option<Instant>,
    backoff: Backoff,
}

impl FailureTracker {
    /// Nothing has failed yet; waits grow to `most`.
    pub const fn new(most: Duration) -> Self {
        Self { since: None, backoff: Backoff::new(Duration::from_millis(100), most) }
    }

    /// Notes a failure; `true` once it has gone on for so long that somebody should know.
    pub fn record_failure(&mut self) -> bool {
        self.since.get_or_insert_with(Instant::now).elapsed() >= REPORT_AFTER
    }

    /// How long to wait before the next try.
    pub fn next_wait(&mut self, random: &JitterRng) -> Duration {
        self.backoff.next_wait(random)
    }

    /// It worked.
    pub fn record_success(&mut self) {
        self.since = None;
        self.backoff.reset();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_doubles_up_to_its_bound_and_begins_anew() {
        let random = JitterRng::seeded(1);
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(350));
        for most in [100, 200, 350, 350] {
            let wait = backoff.next_wait(&random).as_millis();
            assert!((most / 2..=most).contains(&wait), "{wait} of {most}");
        }
        backoff.reset();
        assert!(backoff.next_wait(&random).as_millis() <= 100);
    }
}
