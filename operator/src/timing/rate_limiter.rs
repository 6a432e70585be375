//! A rate limiter that admits callers in the order in which they came, so that none of them
//! starves.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// A rate limiter whose callers share one queue.
#[derive(Debug, Default)]
pub struct FifoRateLimiter {
    /// When the next call may begin if no burst is allowed. The caller that waits holds the lock,
    /// so a caller that is cancelled leaves no reservation behind.
    next: Mutex<Option<Instant>>,
}

impl FifoRateLimiter {
    /// Waits until the next call may begin. The call uses `cost` of the limiter's time. `cost` is
    /// computed once the caller is at the head of the queue. Up to `burst` of unused time can be
    /// saved.
    pub async fn acquire(&self, burst: Duration, cost: impl FnOnce(Instant) -> Duration) {
        let mut next = self.next.lock().await;
        let now = Instant::now();
        let cost = cost(now);
        // Unused time is saved by letting a call begin up to `burst` before its slot. A call whose
        // slot has passed therefore uses up saved time, and one whose slot is further ahead waits.
        let slot = next.unwrap_or(now).max(now);
        let begin = slot.checked_sub(burst).unwrap_or(now);
        // A timer takes a millisecond even if there is nothing to wait for.
        if begin > now {
            sleep_until(begin).await;
        }
        *next = Some(slot + cost);
    }
}
