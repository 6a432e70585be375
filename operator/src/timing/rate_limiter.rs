//! Who shares a limit takes turns: in the order in which they asked, so that nobody waits for ever.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

/// The turns of all that share one limit.
#[derive(Debug, Default)]
pub struct FifoRateLimiter {
    /// When the next one may begin, had nothing been saved. Whoever waits for its turn has it, so
    /// that one who gives up leaves nothing behind.
    next: Mutex<Option<Instant>>,
}

impl FifoRateLimiter {
    /// Waits for a turn. It takes up as much time as `each` says once it is the next; of the time
    /// that nobody used, so much may be `saved` up.
    pub async fn acquire(&self, saved: Duration, each: impl FnOnce(Instant) -> Duration) {
        let mut next = self.next.lock().await;
        let now = Instant::now();
        let each = each(now);
        // Counted from the far end of what may be saved: one that finds its turn passed uses up what
        // was saved, one that finds it ahead waits.
        let turn = next.unwrap_or(now).max(now);
        let begin = turn.checked_sub(saved).unwrap_or(now);
        // A timer takes a millisecond even where there is nothing to wait for.
        if begin > now {
            sleep_until(begin).await;
        }
        *next = Some(turn + each);
    }
}
