//! What goes wrong at the moment: single calls by chance, and every call to one neighbour for a
//! while.

use stream_notifier::delivery::{ConnectionsErrorKind, DeadLetterErrorKind};
use stream_notifier::streams::StreamErrorKind;

/// How likely a single call goes wrong, from 0 to 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chances {
    /// A call to the stream fails or hangs.
    pub streams: f64,
    /// A call to the connections table fails.
    pub connections: f64,
    /// A post is not simply delivered.
    pub posts: f64,
    /// A call to the checkpoint's store fails or hangs.
    pub store: f64,
    /// A letter is not simply taken by the dead-letter queue.
    pub letters: f64,
    /// Any call takes a hundred times as long.
    pub slow: f64,
}

/// What goes wrong with every call until some moment.
#[derive(Clone, Copy, Debug)]
pub struct Window<T> {
    what: T,
    until: u64,
}

/// A checkpoint's store that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StoreFault {
    /// It gives no answer, and does nothing.
    Unknown,
    /// It refuses.
    AccessDenied,
}

/// Everything that goes wrong.
#[derive(Debug)]
pub struct Faults {
    /// Single calls.
    pub chances: Chances,
    /// The streams.
    pub streams: Option<Window<StreamErrorKind>>,
    /// The connections table.
    pub connections: Option<Window<ConnectionsErrorKind>>,
    /// The WebSocket API.
    pub gateway: Option<Window<u16>>,
    /// The checkpoint's store.
    pub store: Option<Window<StoreFault>>,
    /// The dead-letter queue.
    pub queue: Option<Window<DeadLetterErrorKind>>,
}

impl<T: Copy> Window<T> {
    /// Something that goes wrong until then.
    pub fn new(what: T, until: u64) -> Option<Self> {
        Some(Self { what, until })
    }
}

impl Faults {
    /// Single calls go wrong so often, and nothing else.
    pub fn new(chances: Chances) -> Self {
        Self { chances, streams: None, connections: None, gateway: None, store: None, queue: None }
    }

    /// Nothing goes wrong any more.
    pub fn end(&mut self) {
        *self = Self::new(Chances::default());
    }
}

/// What goes wrong for everybody now.
pub fn now<T: Copy>(window: Option<Window<T>>, now: u64) -> Option<T> {
    window.filter(|window| now < window.until).map(|window| window.what)
}
