//! Holds every post while rights or endpoint are wrong, and lets one at a time through to see
//! whether they still are. Its clock stands still meanwhile, so that no message ages.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, sleep};

use crate::timing::{Backoff, JitterRng};

const INITIAL_PROBE_INTERVAL: Duration = Duration::from_secs(1);
const MAX_PROBE_INTERVAL: Duration = Duration::from_secs(30);

/// The gate before all posts of a notifier.
#[derive(Debug)]
pub struct CircuitBreaker {
    state: std::sync::Mutex<BreakerState>,
    /// Told when it opens; not a watch channel, which wakes those who wait in random order.
    closed: Notify,
    /// Whoever has it may probe.
    probe: Mutex<Backoff>,
    random: Arc<JitterRng>,
}

#[derive(Clone, Copy, Debug)]
struct BreakerState {
    /// Since when it is shut, if it is.
    opened_at: Option<Instant>,
    /// When its clock began, later by all the time it was shut.
    began: Instant,
}

/// Leave to post. While the gate is shut there is one of these at a time.
#[derive(Debug)]
pub struct Permit<'a> {
    probe: Option<MutexGuard<'a, Backoff>>,
}

impl CircuitBreaker {
    /// An open gate.
    pub fn new(random: Arc<JitterRng>) -> Self {
        let probe = Mutex::new(Backoff::new(INITIAL_PROBE_INTERVAL, MAX_PROBE_INTERVAL));
        let state = std::sync::Mutex::new(BreakerState { opened_at: None, began: Instant::now() });
        Self { state, closed: Notify::new(), probe, random }
    }

    /// How long the gate has been open, all in all.
    pub fn clock(&self) -> Duration {
        let BreakerState { opened_at: shut, began } = *self.state();
        shut.unwrap_or_else(Instant::now).duration_since(began)
    }

    /// Whether posts are held.
    pub fn is_open(&self) -> bool {
        self.state().opened_at.is_some()
    }

    /// Waits until the gate is open, or it is this caller's turn to probe.
    pub async fn acquire(&self) -> Permit<'_> {
        tokio::select! {
            biased;
            () = self.open() => Permit { probe: None },
            probe = self.probe_permit() => Permit { probe: Some(probe) },
        }
    }

    async fn open(&self) {
        loop {
            // Asked for before looking, so that what happens in between is not missed.
            let opened = self.closed.notified();
            if !self.is_open() {
                return;
            }
            opened.await;
        }
    }

    async fn probe_permit(&self) -> MutexGuard<'_, Backoff> {
        let mut probe = self.probe.lock().await;
        sleep(probe.next_wait(&self.random)).await;
        probe
    }

    /// Posts do not get through.
    pub fn trip(&self) {
        self.state().opened_at.get_or_insert_with(Instant::now);
    }

    /// Posts get through.
    pub fn reset(&self, pass: &mut Permit<'_>) {
        if let Some(probe) = &mut pass.probe {
            probe.reset();
        }
        let was_shut = {
            let mut state = self.state();
            let since = state.opened_at.take();
            state.began += since.map_or(Duration::ZERO, |since| since.elapsed());
            since.is_some()
        };
        if was_shut {
            self.closed.notify_waiters();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, BreakerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
