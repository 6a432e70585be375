//! Outcomes of records, lookups and messages, as logs, metrics and dead letters name them.

/// Reason for which the operator dropped a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// An expression failed, so the message or its connections are unknown.
    Invalid,
    /// The message is over 128 KiB.
    TooLarge,
    /// The message was queued for `delivery.maxRecordAgeSeconds`.
    Expired,
    /// The message failed `delivery.maxAttempts` times.
    AttemptsExhausted,
    /// The client is slow, and a newer message for the same item replaced this one.
    Superseded,
    /// The client is slow, and more than 512 KiB were queued for it.
    Overflow,
    /// The client is slow, and the operator closed its connection.
    Disconnected,
}

impl DropReason {
    /// Name in a dead letter.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::TooLarge => "TooLarge",
            Self::Expired => "Expired",
            Self::AttemptsExhausted => "AttemptsExhausted",
            Self::Superseded => "Superseded",
            Self::Overflow => "Overflow",
            Self::Disconnected => "Disconnected",
        }
    }

    /// Value of the metric's label `outcome`, also used in logs.
    pub(super) fn metric_label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Superseded => "superseded",
            Self::Overflow => "overflow",
            Self::Disconnected => "disconnected",
        }
    }
}

/// Source of the connections of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupKind {
    /// A query of the table or its index.
    Query,
    /// A scan of the table or its index.
    Scan,
    /// A lookup that another record started.
    Coalesced,
    /// A lookup that started before the record was read, as `connections.cacheSeconds` allows.
    Cached,
}

impl LookupKind {
    /// Value of the metric's label `source`.
    pub(super) fn metric_label(self) -> &'static str {
        match self {
            Self::Query => "query",
            Self::Scan => "scan",
            Self::Coalesced => "coalesced",
            Self::Cached => "cache",
        }
    }
}

/// Numbers of records of a page, by the result of their evaluation.
#[derive(Clone, Copy, Debug, Default)]
pub struct RecordCounts {
    /// Records that do not match the spec.
    pub skipped: u64,
    /// Records older than the starting position.
    pub before_start: u64,
    /// Records that match the spec.
    pub matched: u64,
}
