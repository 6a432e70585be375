//! The time according to AWS. The local wall clock can be wrong, so it is never used for records.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::UnixSeconds;

/// The service's clock: the time of its last response, advanced by the local monotonic clock.
#[derive(Debug)]
pub struct ServiceClock(Mutex<(UnixSeconds, Instant)>);

impl ServiceClock {
    /// A clock that shows 1970 until the first response.
    pub fn at_epoch() -> Self {
        Self(Mutex::new((UnixSeconds(0), Instant::now())))
    }

    /// Adjusts the clock to a response that has just arrived. `now` is its time, rounded down to
    /// the second.
    pub fn observe(&self, now: UnixSeconds) {
        let at = Instant::now();
        let estimated = self.at(at);
        // A time that is 1 s earlier is only rounded down. A later time is always right, because
        // the local monotonic clock can stand still while the machine sleeps.
        if now > estimated || now.0.saturating_add(1) < estimated.0 {
            *self.lock() = (now, at);
        }
    }

    /// The service's time now.
    pub fn now(&self) -> UnixSeconds {
        self.at(Instant::now())
    }

    /// The service's time at a local moment. For moments before the last adjustment it can be 1 s
    /// too early.
    pub fn at(&self, moment: Instant) -> UnixSeconds {
        let (UnixSeconds(observed), at) = *self.lock();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        UnixSeconds(match moment.checked_duration_since(at) {
            Some(after) => observed.saturating_add(seconds(after)),
            None => observed.saturating_sub(seconds(at - moment)).saturating_sub(1),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (UnixSeconds, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn advances_by_itself_and_follows_responses() {
        let clock = ServiceClock::at_epoch();
        clock.observe(UnixSeconds(1_000));
        advance(Duration::from_millis(2_900)).await;
        assert_eq!(clock.now(), UnixSeconds(1_002));
        for (observed, shown) in [(1_003, 1_003), (1_002, 1_003), (1_001, 1_001), (9_000, 9_000)] {
            clock.observe(UnixSeconds(observed));
            assert_eq!(clock.now(), UnixSeconds(shown), "{observed}");
        }
        assert_eq!(clock.at(Instant::now() - Duration::from_secs(5)), UnixSeconds(8_994));
    }
}
