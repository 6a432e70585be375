//! Why a call to DynamoDB Streams failed, whichever client made it.

use crate::model::UnixSeconds;

/// Why a call to a stream failed.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed: {kind}")]
pub struct StreamError {
    /// The call, by its IAM name, such as `dynamodb:GetRecords`.
    pub action: &'static str,
    /// What it means.
    pub kind: StreamErrorKind,
    /// The service's clock, floored to the second, where it told: what is gone is gone by that.
    pub service_time: Option<UnixSeconds>,
    /// What the client said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a failed call to a stream means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamErrorKind {
    /// The iterator is older than 15 minutes.
    #[error("the iterator has expired")]
    ExpiredIterator,
    /// The records asked for are older than 24 hours and gone.
    #[error("the records asked for are no longer kept")]
    Trimmed,
    /// There is no such stream or shard (any more).
    #[error("there is no such stream or shard")]
    NotFound,
    /// The identity lacks the right.
    #[error("access denied")]
    AccessDenied,
    /// The process has no identity.
    #[error("no AWS credentials")]
    NoCredentials,
    /// Too many calls, or too many readers.
    #[error("throttled")]
    Throttled,
    /// The request itself is wrong.
    #[error("the request was refused as invalid")]
    Invalid,
    /// Anything that may pass: the network, a fault of the service.
    #[error("no usable answer")]
    Unavailable,
}

impl StreamErrorKind {
    /// Value of the label `code` in metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::ExpiredIterator => "expired_iterator",
            Self::Trimmed => "trimmed",
            Self::NotFound => "not_found",
            Self::AccessDenied => "access_denied",
            Self::NoCredentials => "no_credentials",
            Self::Throttled => "throttled",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the same call may get an answer a little later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::Unavailable)
    }
}
