//! The steps that a run is made of.

/// One thing that happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Items change.
    Write,
    /// Time passes.
    Wait,
    /// A shard is closed, and has a child.
    Roll,
    /// A shard is closed, and has two children.
    Split,
    /// The stream is disabled.
    Disable,
    /// It is enabled again.
    Enable,
    /// A connection is stored.
    Connect,
    /// A connection hangs up.
    HangUp,
    /// A connection does not read for a while.
    SlowClient,
    /// A worker ends.
    Crash,
    /// A worker is to end at a call.
    CrashPoint,
    /// A worker stands still for a while.
    Pause,
    /// Another worker is started.
    Takeover,
    /// A worker is told to stop.
    Stop,
    /// The streams fail for a while.
    StreamsDown,
    /// The connections table fails for a while.
    ConnectionsDown,
    /// The gateway fails for a while.
    GatewayDown,
    /// The checkpoint's store fails for a while.
    StoreDown,
    /// The dead-letter queue fails for a while.
    QueueDown,
    /// The account is throttled: many connections are, at once.
    Throttle,
    /// A neighbour fails for so long that messages are given up, or iterators expire.
    LongOutage,
    /// Somebody annotates the checkpoint.
    Touch,
    /// Nobody works for long.
    Outage,
    /// Every process stands still for long.
    ClockStop,
}

impl Step {
    /// Every step, and how often it is taken.
    pub const ALL: [(Self, u32); 24] = [
        (Self::Write, 40),
        (Self::Wait, 8),
        (Self::Roll, 8),
        (Self::Split, 3),
        (Self::Disable, 2),
        (Self::Enable, 4),
        (Self::Connect, 3),
        (Self::HangUp, 3),
        (Self::SlowClient, 7),
        (Self::Crash, 4),
        (Self::CrashPoint, 8),
        (Self::Pause, 4),
        (Self::Takeover, 4),
        (Self::Stop, 3),
        (Self::StreamsDown, 2),
        (Self::ConnectionsDown, 2),
        (Self::GatewayDown, 3),
        (Self::StoreDown, 2),
        (Self::QueueDown, 2),
        (Self::Throttle, 2),
        (Self::LongOutage, 2),
        (Self::Touch, 2),
        (Self::Outage, 2),
        (Self::ClockStop, 1),
    ];

    /// What it is counted as.
    pub fn word(self) -> &'static str {
        match self {
            Self::Write => "step: write",
            Self::Wait => "step: wait",
            Self::Roll => "step: roll",
            Self::Split => "step: split",
            Self::Disable => "step: disable",
            Self::Enable => "step: enable",
            Self::Connect => "step: connect",
            Self::HangUp => "step: hang up",
            Self::SlowClient => "step: slow client",
            Self::Crash => "step: crash",
            Self::CrashPoint => "step: doom",
            Self::Pause => "step: pause",
            Self::Takeover => "step: takeover",
            Self::Stop => "step: stop",
            Self::StreamsDown => "step: streams down",
            Self::ConnectionsDown => "step: connections down",
            Self::GatewayDown => "step: gateway down",
            Self::StoreDown => "step: store down",
            Self::QueueDown => "step: queue down",
            Self::Throttle => "step: throttle",
            Self::LongOutage => "step: siege",
            Self::Touch => "step: touch",
            Self::Outage => "step: outage",
            Self::ClockStop => "step: freeze",
        }
    }
}
