//! Classifies failed requests by the error code that AWS sends.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use crate::aws::causes::{has_cause, has_untrusted_certificate};
use crate::aws::credentials::CredentialsFailure;
use crate::aws::raw::aws_json::CallError;
use crate::delivery::{
    ConnectionsError, ConnectionsErrorKind, DeadLetterError, DeadLetterErrorKind,
};
use crate::model::UnixSeconds;
use crate::streams::{StreamError, StreamErrorKind};

/// The class of an error. The codes are those of DynamoDB and SQS, and the common ones of AWS.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Programming.Errors.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ErrorClass {
    ExpiredIterator,
    Trimmed,
    NotFound,
    AccessDenied,
    NoCredentials,
    UntrustedCertificate,
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
        SdkError::ServiceError(error) => classify_code(error.err().code()),
        _ if has_untrusted_certificate(error) => ErrorClass::UntrustedCertificate,
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

/// Classifies a failed request of the streams client.
pub fn stream_error<E, R>(action: &'static str, error: SdkError<E, R>) -> StreamError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let class = classify(&error);
    let (kind, source) = (stream_error_kind(class), Some(source(class, error)));
    StreamError { action, kind, service_time: None, source }
}

/// Classifies a failed GetRecords request.
pub fn raw_stream_error(action: &'static str, error: CallError) -> StreamError {
    let class = match &error {
        error if has_untrusted_certificate(error) => ErrorClass::UntrustedCertificate,
        error if error.is_missing_credentials() => ErrorClass::NoCredentials,
        error => classify_code(error.code()),
    };
    let service_time = error.date().map(|date| UnixSeconds(date.secs()));
    let (kind, source) = (stream_error_kind(class), Some(source(class, error)));
    StreamError { action, kind, service_time, source }
}

fn stream_error_kind(class: ErrorClass) -> StreamErrorKind {
    match class {
        ErrorClass::ExpiredIterator => StreamErrorKind::ExpiredIterator,
        ErrorClass::Trimmed => StreamErrorKind::Trimmed,
        ErrorClass::NotFound => StreamErrorKind::NotFound,
        ErrorClass::AccessDenied => StreamErrorKind::AccessDenied,
        ErrorClass::NoCredentials => StreamErrorKind::NoCredentials,
        ErrorClass::UntrustedCertificate => StreamErrorKind::UntrustedCertificate,
        ErrorClass::Throttled => StreamErrorKind::Throttled,
        ErrorClass::Invalid => StreamErrorKind::Invalid,
        ErrorClass::Unavailable => StreamErrorKind::Unavailable,
    }
}

/// Classifies a failed request to the connections table. A missing index is `Invalid` in a query,
/// so it must be detected in advance with DescribeTable.
pub fn connections_error<E, R>(action: &'static str, error: SdkError<E, R>) -> ConnectionsError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let class = classify(&error);
    let kind = match class {
        ErrorClass::NotFound => ConnectionsErrorKind::NotFound,
        ErrorClass::AccessDenied => ConnectionsErrorKind::AccessDenied,
        ErrorClass::NoCredentials => ConnectionsErrorKind::NoCredentials,
        ErrorClass::UntrustedCertificate => ConnectionsErrorKind::UntrustedCertificate,
        ErrorClass::Invalid => ConnectionsErrorKind::Invalid,
        ErrorClass::ExpiredIterator
        | ErrorClass::Trimmed
        | ErrorClass::Throttled
        | ErrorClass::Unavailable => ConnectionsErrorKind::Unavailable,
    };
    ConnectionsError { action, kind, source: Some(source(class, error)) }
}

/// Classifies a failed request to a dead-letter queue.
pub fn dead_letter_error<E, R>(error: SdkError<E, R>) -> DeadLetterError
where
    E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    R: std::fmt::Debug + Send + Sync + 'static,
{
    let class = classify(&error);
    let kind = match class {
        ErrorClass::NotFound => DeadLetterErrorKind::NotFound,
        ErrorClass::AccessDenied => DeadLetterErrorKind::AccessDenied,
        ErrorClass::NoCredentials => DeadLetterErrorKind::NoCredentials,
        ErrorClass::UntrustedCertificate => DeadLetterErrorKind::UntrustedCertificate,
        // The size is the only part of the request that depends on the record.
        ErrorClass::Invalid => DeadLetterErrorKind::TooLarge,
        ErrorClass::ExpiredIterator
        | ErrorClass::Trimmed
        | ErrorClass::Throttled
        | ErrorClass::Unavailable => DeadLetterErrorKind::Unavailable,
    };
    DeadLetterError { kind, source: Some(source(class, error)) }
}

/// The source of an error. If there are no credentials, its text is the cause.
fn source(class: ErrorClass, error: impl Into<BoxError>) -> BoxError {
    match class {
        ErrorClass::NoCredentials => CredentialsFailure::new(error.into()).into(),
        _ => error.into(),
    }
}
