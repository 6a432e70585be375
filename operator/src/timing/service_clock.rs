//! What time it is, as AWS says: this machine's own clock may be wrong.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::UnixSeconds;

/// The service's clock, as its last answer told it and ours has gone on since.
#[derive(Debug)]
pub struct ServiceClock(Mutex<(UnixSeconds, Instant)>);

impl ServiceClock {
    /// A clock that shows 1970 until the service is heard.
    pub fn new() -> Self {
        Self(Mutex::new((UnixSeconds(0), Instant::now())))
    }

    /// The service said `now`, floored to the second, in an answer that has just come.
    pub fn observe(&self, now: UnixSeconds) {
        let at = Instant::now();
        let known = self.at(at);
        // What is a second less is only floored; what is later is so for certain, for one that our
        // machine slept through too, of which its own clock knows nothing.
        if now > known || now.0.saturating_add(1) < known.0 {
            *self.lock() = (now, at);
        }
    }

    /// What the service would say now.
    pub fn now(&self) -> UnixSeconds {
        self.at(Instant::now())
    }

    /// What the service would have said at a moment of ours, or a second less.
    pub fn at(&self, moment: Instant) -> UnixSeconds {
        let (UnixSeconds(then), at) = *self.lock();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        UnixSeconds(match moment.checked_duration_since(at) {
            Some(after) => then.saturating_add(seconds(after)),
            None => then.saturating_sub(seconds(at - moment)).saturating_sub(1),
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
    async fn it_goes_on_by_itself_and_follows_what_is_heard() {
        let clock = ServiceClock::new();
        clock.observe(UnixSeconds(1_000));
        advance(Duration::from_millis(2_900)).await;
        assert_eq!(clock.now(), UnixSeconds(1_002));
        for (heard, shows) in [(1_003, 1_003), (1_002, 1_003), (1_001, 1_001), (9_000, 9_000)] {
            clock.observe(UnixSeconds(heard));
            assert_eq!(clock.now(), UnixSeconds(shows), "{heard}");
        }
        assert_eq!(clock.at(Instant::now() - Duration::from_secs(5)), UnixSeconds(8_994));
    }
}
