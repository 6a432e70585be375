//! Names of the condition types, and the states of `Ready`.

pub(super) const READY: &str = "Ready";
pub(super) const RECONCILING: &str = "Reconciling";
pub(super) const STALLED: &str = "Stalled";
pub(super) const DEGRADED: &str = "Degraded";
pub(super) const DATA_GAP: &str = "DataGap";

/// Every condition type, in the order of `docs/conditions.md`.
pub const CONDITION_TYPES: [&str; 5] = [READY, RECONCILING, STALLED, DEGRADED, DATA_GAP];

/// State of `Ready`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadyState {
    /// The operator reads every open shard, or the notifier is suspended.
    Ready,
    /// The worker is starting.
    Starting,
    /// A problem that can pass without a change of the resource.
    Retrying,
    /// A problem that lasts until a person changes the resource, or a resource that it names.
    Stalled,
}

impl ReadyState {
    /// Status of the condition `Ready`.
    pub const fn status(self) -> &'static str {
        match self {
            Self::Ready => "True",
            Self::Starting => "Unknown",
            Self::Retrying | Self::Stalled => "False",
        }
    }

    /// Type of the condition that is `True` beside `Ready`.
    pub const fn companion(self) -> Option<&'static str> {
        match self {
            Self::Ready => None,
            Self::Starting | Self::Retrying => Some(RECONCILING),
            Self::Stalled => Some(STALLED),
        }
    }
}
