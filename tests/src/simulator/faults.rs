//! Active faults: random faults of single calls, and periods in which every request to a backend
//! fails.

use stream_notifier::delivery::{ConnectionsErrorKind, DeadLetterErrorKind};
use stream_notifier::streams::StreamErrorKind;

/// Probabilities of faults of a single call, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chances {
    /// A request to the streams fails or times out.
    pub streams: f64,
    /// A request to the connections table fails.
    pub connections: f64,
    /// A post is rejected or lost.
    pub posts: f64,
    /// A request to the checkpoint store fails or times out.
    pub store: f64,
    /// A dead letter is rejected or lost.
    pub dead_letters: f64,
    /// A call takes up to 100 times the maximum latency.
    pub slow: f64,
}

/// A fault of every request until a time.
#[derive(Clone, Copy, Debug)]
pub struct Window<T> {
    fault: T,
    until: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// The outcome is unknown, and the call has no effect.
    Unknown,
    AccessDenied,
}

#[derive(Debug)]
pub struct Faults {
    pub chances: Chances,
    pub streams: Option<Window<StreamErrorKind>>,
    pub connections: Option<Window<ConnectionsErrorKind>>,
    /// A status, or one of the constants of [`gateway`](super::gateway).
    pub gateway: Option<Window<u16>>,
    pub store: Option<Window<StoreFault>>,
    pub queue: Option<Window<DeadLetterErrorKind>>,
}

impl<T: Copy> Window<T> {
    pub fn new(fault: T, until: u64) -> Option<Self> {
        Some(Self { fault, until })
    }
}

impl Faults {
    pub fn new(chances: Chances) -> Self {
        Self { chances, streams: None, connections: None, gateway: None, store: None, queue: None }
    }

    /// Ends all faults.
    pub fn end(&mut self) {
        *self = Self::new(Chances::default());
    }
}

/// The fault of a window that has not ended.
pub fn active<T: Copy>(window: Option<Window<T>>, now: u64) -> Option<T> {
    window.filter(|window| now < window.until).map(|window| window.fault)
}
