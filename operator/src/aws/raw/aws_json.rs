//! Sends requests of the AWS JSON 1.0 protocol. Returns the unparsed body or the service's error
//! code.
//!
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html>

use aws_smithy_types::DateTime;
use aws_smithy_types::error::metadata::ErrorMetadata;
use bytes::Bytes;
use serde_json::{Map, Value};
use thiserror::Error;

use super::clock_skew::date_header;
use super::sigv4_client::{Request, Response, SendError, SigV4Client};

/// The maximum length of a response body. A page has up to 1 MB of items, which JSON and Base64
/// expand.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// An operation of a service.
#[derive(Debug)]
pub struct AwsJsonOperation {
    /// `None` without credentials.
    pub client: Option<SigV4Client>,
    /// The endpoint of the service.
    pub endpoint: String,
    /// The header `X-Amz-Target`: the service with its version, and the operation.
    pub target: &'static str,
}

/// A successful response.
#[derive(Debug)]
pub struct JsonResponse {
    pub body: Vec<u8>,
    /// The service's clock, if the response has it.
    pub date: Option<DateTime>,
}

/// A failed request.
#[derive(Debug, Error)]
pub enum CallError {
    /// There is no response.
    #[error(transparent)]
    NoResponse(#[from] SendError),
    /// The body is incomplete.
    #[error("the response is incomplete or longer than {MAX_RESPONSE_BYTES} bytes")]
    Incomplete,
    /// The service returned an error.
    #[error("{error}")]
    Service {
        /// The code and message of the service.
        error: ErrorMetadata,
        /// The service's clock, if the response has it.
        date: Option<DateTime>,
    },
}

impl AwsJsonOperation {
    /// Sends one request with this body.
    pub async fn send(&self, body: &Bytes) -> Result<JsonResponse, CallError> {
        let client = self.client.as_ref().ok_or(SendError::NoCredentials(None))?;
        let headers =
            [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", self.target)];
        let (endpoint, path) = (&*self.endpoint, "/");
        let request = Request { method: "POST", endpoint, path, headers: &headers, body };
        let response = client.send(request, MAX_RESPONSE_BYTES).await?;
        let date = date_header(&response.headers);
        match response.status {
            200..=299 if response.is_complete => Ok(JsonResponse { body: response.body, date }),
            200..=299 => Err(CallError::Incomplete),
            _ => Err(CallError::Service { error: service_error(&response), date }),
        }
    }
}

/// Parses the error of a service. The code is in a header or in the body. It can have a namespace
/// before it and a URL after it.
fn service_error(response: &Response) -> ErrorMetadata {
    let body: Map<String, Value> = serde_json::from_slice(&response.body).unwrap_or_default();
    let text = |name| body.get(name).and_then(Value::as_str);
    let code = response.headers.get("x-amzn-errortype").or(text("code")).or(text("__type"));
    let message = text("message").or(text("Message")).or(text("errorMessage"));
    let mut error = ErrorMetadata::builder();
    if let Some(code) = code {
        let code = code.split(':').next().unwrap_or_default();
        error = error.code(code.rsplit('#').next().unwrap_or_default());
    }
    if let Some(message) = message {
        error = error.message(message);
    }
    if let Some(request_id) = response.headers.get("x-amzn-requestid") {
        error = error.custom("aws_request_id", request_id);
    }
    error.build()
}

impl CallError {
    /// The error code of the service, if there is one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::NoResponse(_) | Self::Incomplete => None,
            Self::Service { error, .. } => error.code(),
        }
    }

    /// The service's clock, if the response has it.
    pub fn date(&self) -> Option<DateTime> {
        match self {
            Self::NoResponse(_) | Self::Incomplete => None,
            Self::Service { date, .. } => *date,
        }
    }

    /// Whether no credentials were available.
    pub fn is_missing_credentials(&self) -> bool {
        matches!(self, Self::NoResponse(SendError::NoCredentials(_)))
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::Headers;

    use super::*;

    fn error(pairs: &[(&'static str, &'static str)], body: &str) -> ErrorMetadata {
        let mut headers = Headers::new();
        for (name, value) in pairs {
            headers.insert(*name, *value);
        }
        let body = body.as_bytes().to_vec();
        service_error(&Response { status: 400, headers, body, is_complete: true })
    }

    #[test]
    fn strips_namespace_and_url_from_the_code() {
        for code in [
            "ExpiredIteratorException",
            "com.amazonaws.dynamodb.v20120810#ExpiredIteratorException",
            "com.amazonaws.dynamodb#ExpiredIteratorException:http://internal.amazon.com/",
        ] {
            let in_type = format!(r#"{{"__type":"{code}","message":"it is old"}}"#);
            let in_code = format!(r#"{{"code":"{code}","Message":"it is old","message":null}}"#);
            for body in [in_type, in_code] {
                let error = error(&[("x-amzn-requestid", "7")], &body);
                assert_eq!(error.code(), Some("ExpiredIteratorException"), "{body}");
                assert_eq!(error.message(), Some("it is old"), "{body}");
                assert_eq!(error.extra("aws_request_id"), Some("7"));
            }
        }
        for body in ["", "<html>", "{}", r#"{"__type":7}"#] {
            assert_eq!(error(&[], body).code(), None, "{body}");
            let header = [("x-amzn-errortype", "ExpiredIteratorException")];
            assert_eq!(error(&header, body).code(), Some("ExpiredIteratorException"), "{body}");
        }
    }
}
