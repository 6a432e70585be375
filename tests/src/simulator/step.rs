//! Steps of a run.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Writes items.
    Write,
    /// Lets time pass.
    Wait,
    /// Closes a shard and opens its child.
    Roll,
    /// Closes a shard and opens its two children.
    Split,
    /// Disables the stream.
    Disable,
    /// Enables a new stream.
    Enable,
    /// Stores a connection.
    Connect,
    /// Closes a connection from the client's side.
    HangUp,
    /// Lets a client read nothing for a period.
    SlowClient,
    /// Crashes a process at once.
    Crash,
    /// Crashes a process at a later call.
    CrashPoint,
    /// Pauses a process for a period.
    Pause,
    /// Starts another process while one may run.
    Takeover,
    /// Stops a worker, as SIGTERM does.
    Stop,
    /// Fails all requests to the streams for a period.
    StreamsDown,
    /// Fails all requests to the connections table for a period.
    ConnectionsDown,
    /// Fails all posts for a period.
    GatewayDown,
    /// Fails all requests to the checkpoint store for a period.
    StoreDown,
    /// Fails all dead letters for a period.
    QueueDown,
    /// Throttles the account, that is, all connections at once.
    Throttle,
    /// Fails a backend until messages expire, or iterators do.
    LongOutage,
    /// Writes to the checkpoint as someone else.
    StoreWrite,
    /// Crashes all processes, then lets a long time pass.
    Outage,
    /// Pauses all processes, then lets a long time pass.
    ClockStop,
}

impl Step {
    /// Every step, with its weight.
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
        (Self::StoreWrite, 2),
        (Self::Outage, 2),
        (Self::ClockStop, 1),
    ];

    /// The label of its count.
    pub fn label(self) -> &'static str {
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
            Self::CrashPoint => "step: crash point",
            Self::Pause => "step: pause",
            Self::Takeover => "step: takeover",
            Self::Stop => "step: stop",
            Self::StreamsDown => "step: streams down",
            Self::ConnectionsDown => "step: connections down",
            Self::GatewayDown => "step: gateway down",
            Self::StoreDown => "step: store down",
            Self::QueueDown => "step: queue down",
            Self::Throttle => "step: throttle",
            Self::LongOutage => "step: long outage",
            Self::StoreWrite => "step: store write",
            Self::Outage => "step: outage",
            Self::ClockStop => "step: clock stop",
        }
    }
}
