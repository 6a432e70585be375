//! What time it is, as AWS says: this machine's own clock may be wrong.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::record::UnixSeconds;

/// The service's clock, as its last answer told it and ours has gone on since.
#[derive(Debug)]
pub struct ServiceClock(Mutex<(UnixSeconds, Instant)>);

impl ServiceClock {
    /// The clock of a service that said `now` at this moment of ours.
    pub fn new(now: UnixSeconds, at: Instant) -> Self {
        Self(Mutex::new((now, at)))
    }

    /// The service said `now` at this moment of ours.
    pub fn set(&self, now: UnixSeconds, at: Instant) {
        *self.lock() = (now, at);
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
