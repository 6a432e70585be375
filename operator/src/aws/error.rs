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
enum ErrorClass {
    ExpiredIterator,
    Trimmed,
    NotFound,
    AccessDenied,
    NoCredentials,
    Throttled,
    Invalid,
    Unavailable,
}

fn classify<E, R>(error: &SdkError<E, R>) -> ErrorClass
where
    E: ProvideErrorMetadata + Error + 'static,
    R: std::fmt::Debug + 'static,
{
    match error {
        SdkError::ServiceError(answer) => classify_code(answer.err().code()),
        _ if has_cause::<CredentialsError>(error) => ErrorClass::NoCredentials,
        _ => classify_code(None),
    }
}

fn classify_code(code: Option<&str>) -> ErrorClass {
    match code.unwrap_or_default() {
        "ExpiredIteratorException" => ErrorClass::ExpiredIterator,
        "TrimmedDataAccessException" => ErrorClass::Trimmed,
        "ResourceNotFoundException"
        | "QueueDoesNotExist"
        | "AWS.SimpleQueueService.NonExistentQueue" => ErrorClass::NotFound,
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
        | "OptInRequired" => ErrorClass::AccessDenied,
        "LimitExceededException"
        | "ThrottlingException"
        | "RequestLimitExceeded"
        | "ProvisionedThroughputExceededException" => ErrorClass::Throttled,
        "ValidationException"
        | "SerializationException"
        | "InvalidMessageContents"
        | "InvalidParameterValue"
        | "InvalidParameterValueException" => ErrorClass::Invalid,
        _ => ErrorClass::Unavailable,
    }
}

/// A failed call to a stream.
pub fn stream<E, R>(action: &'static str, error: SdkError<E, R>) -> StreamError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let kind = stream_kind(classify(&error));
    StreamError { action, kind, service_time: None, source: Some(error.into()) }
}

/// A failed call to a stream, made without the SDK's client.
pub fn stream_call(action: &'static str, error: CallError) -> StreamError {
    let kind = match error.lacks_credentials() {
        true => StreamErrorKind::NoCredentials,
        false => stream_kind(classify_code(error.code())),
    };
    let service_time = error.date().map(|date| UnixSeconds(date.secs()));
    StreamError { action, kind, service_time, source: Some(error.into()) }
}

fn stream_kind(meaning: ErrorClass) -> StreamErrorKind {
    match meaning {
        ErrorClass::ExpiredIterator => StreamErrorKind::ExpiredIterator,
        ErrorClass::Trimmed => StreamErrorKind::Trimmed,
        ErrorClass::NotFound => StreamErrorKind::NotFound,
        ErrorClass::AccessDenied => StreamErrorKind::AccessDenied,
        ErrorClass::NoCredentials => StreamErrorKind::NoCredentials,
        ErrorClass::Throttled => StreamErrorKind::Throttled,
        ErrorClass::Invalid => StreamErrorKind::Invalid,
        ErrorClass::Unavailable => StreamErrorKind::Unavailable,
    }
}

/// A failed call to the connections table. A table without the index asked for answers as an
/// invalid request; DescribeTable has found that out before.
pub fn connections<E, R>(action: &'static str, error: SdkError<E, R>) -> ConnectionsError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let kind = match classify(&error) {
        ErrorClass::NotFound => ConnectionsErrorKind::NotFound,
        ErrorClass::AccessDenied => ConnectionsErrorKind::AccessDenied,
        ErrorClass::NoCredentials => ConnectionsErrorKind::NoCredentials,
        ErrorClass::Invalid => ConnectionsErrorKind::Invalid,
        ErrorClass::ExpiredIterator
        | ErrorClass::Trimmed
        | ErrorClass::Throttled
        | ErrorClass::Unavailable => ConnectionsErrorKind::Unavailable,
    };
    ConnectionsError { action, kind, source: Some(error.into()) }
}

/// A failed call to a queue.
pub fn dead_letter<E, R>(error: SdkError<E, R>) -> DeadLetterError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let kind = match classify(&error) {
        ErrorClass::NotFound => DeadLetterErrorKind::NotFound,
        ErrorClass::AccessDenied => DeadLetterErrorKind::AccessDenied,
        ErrorClass::NoCredentials => DeadLetterErrorKind::NoCredentials,
        // The length is all that can be wrong with it.
        ErrorClass::Invalid => DeadLetterErrorKind::TooLarge,
        ErrorClass::ExpiredIterator
        | ErrorClass::Trimmed
        | ErrorClass::Throttled
        | ErrorClass::Unavailable => DeadLetterErrorKind::Unavailable,
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
