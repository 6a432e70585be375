//! What a failed call means, by the error code that AWS sends.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::aws::raw::aws_json::CallError;
use crate::delivery::{
    ConnectionsError, ConnectionsErrorKind, DeadLetterError, DeadLetterErrorKind,
};
use crate::model::UnixSeconds;
use crate::streams::{StreamError, StreamErrorKind};

/// The error codes that all services share, and those of DynamoDB.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    ExpiredIterator,
    Trimmed,
    NotFound,
    AccessDenied,
    NoCredentials,
    Throttled,
    Invalid,
    Unavailable,
}

fn meaning<E, R>(error: &SdkError<E, R>) -> Meaning
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match error {
        SdkError::ServiceError(answer) => meaning_of(answer.err().code()),
        _ if has_cause::<CredentialsError>(error) => Meaning::NoCredentials,
        _ => meaning_of(None),
    }
}

fn meaning_of(code: Option<&str>) -> Meaning {
    match code.unwrap_or_default() {
        "ExpiredIteratorException" => Meaning::ExpiredIterator,
        "TrimmedDataAccessException" => Meaning::Trimmed,
        "ResourceNotFoundException"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue" => Meaning::NotFound,
        "AccessDeniedException"
        | "KmsAccessDenied"
        | "AccessDenied"
        | "UnrecognizedClientException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "InvalidSignatureException"
        | "InvalidClientTokenId"
        | "IncompleteSignature"
        | "ExpiredTokenException"
        | "NotAuthorized"
        | "OptInRequired" => Meaning::AccessDenied,
        "LimitExceededException"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "ProvisionedThroughputExceededException" => Meaning::Throttled,
        "ValidationException"
        | "SerializationException"
        | "InvalidMessageContents"
        | "InvalidParameterValue"
        | "InvalidParameterValueException" => Meaning::Invalid,
        _ => Meaning::Unavailable,
    }
}

/// A failed call to a stream.
pub fn stream<E, R>(action: &'static str, error: SdkError<E, R>) -> StreamError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let kind = stream_kind(meaning(&error));
    StreamError { action, kind, service_time: None, source: Some(error.into()) }
}

/// A failed call to a stream, made without the SDK's client.
pub fn stream_call(action: &'static str, error: CallError) -> StreamError {
    let kind = match error.lacks_credentials() {
        true => StreamErrorKind::NoCredentials,
        false => stream_kind(meaning_of(error.code())),
    };
    let service_time = error.date().map(|date| UnixSeconds(date.secs()));
    StreamError { action, kind, service_time, source: Some(error.into()) }
}

fn stream_kind(meaning: Meaning) -> StreamErrorKind {
    match meaning {
        Meaning::ExpiredIterator => StreamErrorKind::ExpiredIterator,
        Meaning::Trimmed => StreamErrorKind::Trimmed,
        Meaning::NotFound => StreamErrorKind::NotFound,
        Meaning::AccessDenied => StreamErrorKind::AccessDenied,
        Meaning::NoCredentials => StreamErrorKind::NoCredentials,
        Meaning::Throttled => StreamErrorKind::Throttled,
        Meaning::Invalid => StreamErrorKind::Invalid,
        Meaning::Unavailable => StreamErrorKind::Unavailable,
    }
}

/// A failed call to the connections table. A table without the index asked for answers as an
/// invalid request; DescribeTable has found that out before.
pub fn connections<E, R>(action: &'static str, error: SdkError<E, R>) -> ConnectionsError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let kind = match meaning(&error) {
        Meaning::NotFound => ConnectionsErrorKind::NotFound,
        Meaning::AccessDenied => ConnectionsErrorKind::AccessDenied,
        Meaning::NoCredentials => ConnectionsErrorKind::NoCredentials,
        Meaning::Invalid => ConnectionsErrorKind::Invalid,
        Meaning::ExpiredIterator | Meaning::Trimmed | Meaning::Throttled | Meaning::Unavailable => {
            ConnectionsErrorKind::Unavailable
        }
    };
    ConnectionsError { action, kind, source: Some(error.into()) }
}

/// A failed call to a queue.
pub fn dead_letter<E, R>(error: SdkError<E, R>) -> DeadLetterError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let kind = match meaning(&error) {
        Meaning::NotFound => DeadLetterErrorKind::NotFound,
        Meaning::AccessDenied => DeadLetterErrorKind::AccessDenied,
        Meaning::NoCredentials => DeadLetterErrorKind::NoCredentials,
        // The length is all that can be wrong with it.
        Meaning::Invalid => DeadLetterErrorKind::TooLarge,
        Meaning::ExpiredIterator | Meaning::Trimmed | Meaning::Throttled | Meaning::Unavailable => {
            DeadLetterErrorKind::Unavailable
        }
    };
    DeadLetterError { kind, source: Some(error.into()) }
}

/// Whether an error, or one of its causes, is a `T`.
pub fn has_cause<T: Error + 'static>(error: &(dyn Error + 'static)) -> bool {
    causes(error).any(|cause| cause.is::<T>())
}

/// An error and its causes.
pub fn causes<'a>(
    error: &'a (dyn Error + 'static),
) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
