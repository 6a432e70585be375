//! What the service answers in place of what was asked for.

/// A call that was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// The iterator is older than 15 minutes.
    ExpiredIterator,
    /// The records asked for are older than 24 hours.
    TrimmedDataAccess,
    /// There is no such stream or shard.
    ResourceNotFound,
    /// Too many calls, or too many readers of one shard.
    LimitExceeded,
    /// The request makes no sense.
    Validation,
    /// A fault of the service.
    InternalServerError,
}

impl Refusal {
    /// The error as AWS spells it.
    pub fn code(self) -> &'static str {
        match self {
            Self::ExpiredIterator => "ExpiredIteratorException",
            Self::TrimmedDataAccess => "TrimmedDataAccessException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::LimitExceeded => "LimitExceededException",
            Self::Validation => "ValidationException",
            Self::InternalServerError => "InternalServerError",
        }
    }
}
