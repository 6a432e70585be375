//! Holds every post while rights or endpoint are wrong, and lets one at a time through to see
//! whether they still are. Nothing is dropped meanwhile.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard, watch};
use tokio::time::sleep;

use crate::backoff::{Backoff, Random};

const FIRST_PROBE: Duration = Duration::from_secs(1);
const SLOWEST_PROBE: Duration = Duration::from_secs(30);

/// The gate before all posts of a notifier.
#[derive(Debug)]
pub struct Gate {
    open: watch::Sender<bool>,
    /// Whoever has it may probe.
    probe: Mutex<Backoff>,
    random: Arc<Random>,
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
        Self { open: watch::Sender::new(true), probe, random }
    }

    /// Waits until the gate is open, or it is this caller's turn to probe.
    pub async fn pass(&self) -> Pass<'_> {
        let mut open = self.open.subscribe();
        tokio::select! {
            biased;
            // The sender is ours, so that it cannot be gone.
            _ = open.wait_for(|open| *open) => Pass { probe: None },
            probe = self.turn() => Pass { probe: Some(probe) },
        }
    }

    async fn turn(&self) -> MutexGuard<'_, Backoff> {
        let mut probe = self.probe.lock().await;
        sleep(probe.next(&self.random)).await;
        probe
    }

    /// Posts do not get through; `true` if that is news.
    pub fn shut(&self) -> bool {
        self.open.send_if_modified(|open| std::mem::replace(open, false))
    }

    /// Posts get through; `true` if that is news.
    pub fn unlock(&self, pass: &mut Pass<'_>) -> bool {
        if let Some(probe) = &mut pass.probe {
            probe.reset();
        }
        self.open.send_if_modified(|open| !std::mem::replace(open, true))
    }
}
