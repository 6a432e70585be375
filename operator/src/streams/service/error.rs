//! Errors of the DynamoDB Streams API, independent of the client.

use crate::model::UnixSeconds;

/// A failed request to DynamoDB Streams.
#[derive(Debug, thiserror::Error)]
#[error("{action} failed: {kind}")]
pub struct StreamError {
    /// IAM action of the request, such as `dynamodb:GetRecords`.
    pub action: &'static str,
    /// Class of the error.
    pub kind: StreamErrorKind,
    /// The service's clock, rounded down to the second, if the response contained it. It dates the
    /// loss of trimmed records.
    pub service_time: Option<UnixSeconds>,
    /// Error of the client.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Class of a failed request to DynamoDB Streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamErrorKind {
    /// The shard iterator is older than 15 minutes.
    #[error("shard iterator expired")]
    ExpiredIterator,
    /// The requested records are older than 24 hours.
    #[error("requested records were trimmed")]
    Trimmed,
    /// The stream or shard does not exist, or no longer exists.
    #[error("stream or shard not found")]
    NotFound,
    /// The identity lacks the permission.
    #[error("access denied")]
    AccessDenied,
    /// The process has no AWS credentials.
    #[error("no AWS credentials")]
    NoCredentials,
    /// The issuer of the endpoint's certificate is not trusted.
    #[error("untrusted certificate")]
    UntrustedCertificate,
    /// Too many requests, or too many readers of a shard.
    #[error("throttled")]
    Throttled,
    /// The service rejected the request itself.
    #[error("request rejected as invalid")]
    Invalid,
    /// Any error that can pass by itself, such as a network or service error.
    #[error("no usable response")]
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
            Self::UntrustedCertificate => "untrusted_certificate",
            Self::Throttled => "throttled",
            Self::Invalid => "invalid",
            Self::Unavailable => "unavailable",
        }
    }

    /// Whether the same request can succeed later.
    pub fn is_retryable(self) -> bool {
        matches!(self, Self::Throttled | Self::UntrustedCertificate | Self::Unavailable)
    }
}
