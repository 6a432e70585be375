//! Circuit breaker for the posts of a notifier.
//!
//! It opens while permissions or the endpoint are wrong, and then holds every post except one probe
//! at a time. Its clock stops while it is open, so no message ages because of the endpoint.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, sleep};

use crate::timing::{Backoff, JitterRng};

const INITIAL_PROBE_INTERVAL: Duration = Duration::from_secs(1);
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// Circuit breaker for the posts of one notifier. It is closed at first.
#[derive(Debug)]
pub struct CircuitBreaker {
    state: std::sync::Mutex<BreakerState>,
    /// Notified when the breaker closes. It is not a watch channel, because that would wake the
    /// waiting posts in random order.
    closed: Notify,
    /// Held by the post that is the probe.
    probe: Mutex<Backoff>,
    rng: Arc<JitterRng>,
}

#[derive(Clone, Copy, Debug)]
struct BreakerState {
    /// When the breaker opened. `None` while it is closed.
    opened_at: Option<Instant>,
    /// When the clock started, moved forward by all the time that the breaker was open.
    clock_start: Instant,
}

/// Permit for a post. While the breaker is open, there is at most one, for the probe.
#[derive(Debug)]
pub struct Permit<'a> {
    probe: Option<MutexGuard<'a, Backoff>>,
}

impl CircuitBreaker {
    pub fn new(rng: Arc<JitterRng>) -> Self {
        let probe = Mutex::new(Backoff::new(INITIAL_PROBE_INTERVAL, MAX_PROBE_INTERVAL));
        let state = BreakerState { opened_at: None, clock_start: Instant::now() };
        Self { state: std::sync::Mutex::new(state), closed: Notify::new(), probe, rng }
    }

    /// Time that the breaker has been closed in total.
    pub fn clock(&self) -> Duration {
        let BreakerState { opened_at, clock_start } = *self.state();
        opened_at.unwrap_or_else(Instant::now).duration_since(clock_start)
    }

    /// Whether posts are held.
    pub fn is_open(&self) -> bool {
        self.state().opened_at.is_some()
    }

    /// Waits until the breaker is closed, or until this post may be the probe.
    pub async fn acquire(&self) -> Permit<'_> {
        tokio::select! {
            biased;
            () = self.wait_closed() => Permit { probe: None },
            probe = self.probe_permit() => Permit { probe: Some(probe) },
        }
    }

    async fn wait_closed(&self) {
        loop {
            // Created before the check, so that no notification in between is missed.
            let closed = self.closed.notified();
            if !self.is_open() {
                return;
            }
            closed.await;
        }
    }

    async fn probe_permit(&self) -> MutexGuard<'_, Backoff> {
        let mut probe = self.probe.lock().await;
        sleep(probe.next_wait(&self.rng)).await;
        probe
    }

    /// Opens the breaker.
    pub fn trip(&self) {
        self.state().opened_at.get_or_insert_with(Instant::now);
    }

    /// Closes the breaker.
    pub fn reset(&self, permit: &mut Permit<'_>) {
        if let Some(probe) = &mut permit.probe {
            probe.reset();
        }
        let was_open = {
            let mut state = self.state();
            let opened_at = state.opened_at.take();
            state.clock_start += opened_at.map_or(Duration::ZERO, |at| at.elapsed());
            opened_at.is_some()
        };
        if was_open {
            self.closed.notify_waiters();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
