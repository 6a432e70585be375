//! Error responses of DynamoDB Streams.

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ServiceError {
    /// The iterator is older than 15 minutes.
    ExpiredIterator,
    /// The requested records are older than 24 hours.
    TrimmedDataAccess,
    /// The stream or shard does not exist.
    ResourceNotFound,
    /// There were too many requests, or too many readers of one shard.
    LimitExceeded,
    /// The request is invalid.
    Validation,
    InternalServerError,
}

impl ServiceError {
    /// The name that AWS uses.
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
