//! The dead-letter queue, whichever client sends to it.

use std::fmt;

use futures::future::BoxFuture;

/// A queue for the records of lost messages.
pub trait DeadLetterQueue: fmt::Debug + Send + Sync + 'static {
    /// The queue's ARN, which conditions name.
    fn arn(&self) -> &str;

    /// Sends a letter, once. A queue that keeps order keeps it within `group`, and takes the same
    /// `id` once.
    fn send<'a>(
        &'a self,
        letter: &'a str,
        group: &'a str,
        id: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>>;
}

/// Why a letter was not sent.
#[derive(Debug, thiserror::Error)]
#[error("sqs:SendMessage failed: {kind}")]
pub struct DeadLetterError {
    /// What it means.
    pub kind: DeadLetterErrorKind,
    /// What the client said.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What a letter that was not sent means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DeadLetterErrorKind {
    /// The queue takes shorter ones only.
    #[error("the message is longer than the queue takes")]
    TooLarge,
    /// There is no such queue.
    #[error("there is no such queue")]
    NotFound,
    /// The identity lacks the right.
    #[error("access denied")]
    AccessDenied,
    /// The process has no identity.
    #[error("no AWS credentials")]
    NoCredentials,
    /// Anything that may pass.
    #[error("no usable answer")]
    Unavailable,
}
