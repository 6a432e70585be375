//! The interface to the dead-letter queue, which production and tests implement.

use std::fmt;

use futures::future::BoxFuture;

/// A queue that receives dead letters.
pub trait DeadLetterQueue: fmt::Debug + Send + Sync + 'static {
    /// ARN of the queue, for condition messages.
    fn arn(&self) -> &str;

    /// Sends a dead letter, once. A FIFO queue keeps the order within `group`, and discards another
    /// dead letter with the same `id`.
    fn send<'a>(
        &'a self,
        payload: &'a str,
        group: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>>;
}

/// A dead letter could not be sent.
#[derive(Debug, thiserror::Error)]
#[error("sqs:SendMessage failed: {kind}")]
pub struct DeadLetterError {
    pub kind: DeadLetterErrorKind,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// Why a dead letter could not be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterErrorKind {
    #[error("the message exceeds the queue's maximum size")]
    TooLarge,
    #[error("queue not found")]
    NotFound,
    #[error("access denied")]
    AccessDenied,
    #[error("no AWS credentials")]
    NoCredentials,
    #[error("untrusted certificate")]
    UntrustedCertificate,
    /// A problem that can pass by itself.
    #[error("no usable response")]
    Unavailable,
}
