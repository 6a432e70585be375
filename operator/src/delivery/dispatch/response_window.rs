//! Detects many failures among the responses of one second.

use std::time::Duration;

use tokio::time::Instant;

/// Length of a window.
pub(crate) const WINDOW: Duration = Duration::from_secs(1);

/// Minimum number of failures in a window that count as many.
pub(crate) const MIN_FAILURES: u32 = 5;

/// The responses of the current window.
#[derive(Debug)]
pub(crate) struct ResponseWindow {
    started_at: Instant,
    responses: u32,
    failures: u32,
}

impl ResponseWindow {
    pub fn new(now: Instant) -> Self {
        Self { started_at: now, responses: 0, failures: 0 }
    }

    pub fn started_at(&self) -> Instant {
        self.started_at
    }

    pub fn is_over(&self, now: Instant) -> bool {
        now.duration_since(self.started_at) >= WINDOW
    }

    /// Records a response, in a new window if the current one is over. Returns `true` for a failure
    /// that is one of many: at least [`MIN_FAILURES`], and a tenth of the responses.
    pub fn record(&mut self, is_failure: bool, now: Instant) -> bool {
        if self.is_over(now) {
            *self = Self::new(now);
        }
        self.responses += 1;
        self.failures += u32::from(is_failure);
        is_failure && self.failures >= MIN_FAILURES && self.failures * 10 >= self.responses
    }
}
