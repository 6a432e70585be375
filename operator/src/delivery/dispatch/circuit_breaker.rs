//! Holds every post while rights or endpoint are wrong, and lets one at a time through to see
//! whether they still are. Its clock stands still meanwhile, so that no message ages.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::{Instant, sleep};

use crate::timing::{Backoff, Random};

const FIRST_PROBE: Duration = Duration::from_secs(1);
const SLOWEST_PROBE: Duration = Duration::from_secs(30);

/// The gate before all posts of a notifier.
#[derive(Debug)]
pub struct Gate {
    state: std::sync::Mutex<State>,
    /// Told when it opens; not a watch channel, which wakes those who wait in random order.
    opened: Notify,
    /// Whoever has it may probe.
    probe: Mutex<Backoff>,
    random: Arc<Random>,
}

#[derive(Clone, Copy, Debug)]
struct State {
    /// Since when it is shut, if it is.
    shut: Option<Instant>,
    /// When its clock began, later by all the time it was shut.
    began: Instant,
}

/// Leave to post. While the gate is shut there is one of these at a time.
#[derive(Debug)]
pub struct Pass<'a> {
    probe: Option<MutexGuard<'a, Backoff>>,
}

impl Gate {
    /// An open gate.
    pub fn new(random: Arc<Random>) -> Self {
        let probe = Mutex::new(Backoff::new(FIRST_PROBE, SLOWEST_PROBE));
        let state = std::sync::Mutex::new(State { shut: None, began: Instant::now() });
        Self { state, opened: Notify::new(), probe, random }
    }

    /// How long the gate has been open, all in all.
    pub fn clock(&self) -> Duration {
        let State { shut, began } = *self.state();
        shut.unwrap_or_else(Instant::now).duration_since(began)
    }

    /// Whether posts are held.
    pub fn is_shut(&self) -> bool {
        self.state().shut.is_some()
    }

    /// Waits until the gate is open, or it is this caller's turn to probe.
    pub async fn pass(&self) -> Pass<'_> {
        tokio::select! {
            biased;
            () = self.open() => Pass { probe: None },
            probe = self.turn() => Pass { probe: Some(probe) },
        }
    }

    async fn open(&self) {
        loop {
            // Asked for before looking, so that what happens in between is not missed.
            let opened = self.opened.notified();
            if !self.is_shut() {
                return;
            }
            opened.await;
        }
    }

    async fn turn(&self) -> MutexGuard<'_, Backoff> {
        let mut probe = self.probe.lock().await;
        sleep(probe.next(&self.random)).await;
        probe
    }

    /// Posts do not get through.
    pub fn shut(&self) {
        self.state().shut.get_or_insert_with(Instant::now);
    }

    /// Posts get through.
    pub fn unlock(&self, pass: &mut Pass<'_>) {
        if let Some(probe) = &mut pass.probe {
            probe.reset();
        }
        let was_shut = {
            let mut state = self.state();
            let since = state.shut.take();
            state.began += since.map_or(Duration::ZERO, |since| since.elapsed());
            since.is_some()
        };
        if was_shut {
            self.opened.notify_waiters();
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
