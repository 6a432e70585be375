//! Calls of a service that speaks AWS JSON 1.0, for one that is called many times a second: what it
//! answers is ours to parse, and what it refuses is told by its own code.
//!
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html>

use aws_smithy_types::DateTime;
use aws_smithy_types::error::metadata::ErrorMetadata;
use bytes::Bytes;
use serde_json::{Map, Value};
use thiserror::Error;

use super::clock_skew::date;
use super::sigv4_client::{Request, Response, SendError, SigV4Client};

/// An answer is not longer than this: a page has 1 MB of items, which JSON and base64 stretch.
const MAX_RESPONSE_BYTES: usize = 16 << 20;

/// One call of a service.
#[derive(Debug)]
pub struct AwsJsonOperation {
    /// None without credentials.
    pub client: Option<SigV4Client>,
    /// The service's address.
    pub endpoint: String,
    /// The service's name and version, and the call's name.
    pub target: &'static str,
}

/// What a call gives.
#[derive(Debug)]
pub struct JsonResponse {
    /// The body.
    pub body: Vec<u8>,
    /// The service's clock, if it told.
    pub date: Option<DateTime>,
}

/// Why a call has no result.
#[derive(Debug, Error)]
pub enum CallError {
    /// There was no answer.
    #[error(transparent)]
    NotSent(#[from] SendError),
    /// It came in part.
    #[error("the answer broke off, or is longer than {MAX_RESPONSE_BYTES} bytes")]
    Incomplete,
    /// The service refuses it.
    #[error("{refusal}")]
    Service {
        /// Its code, and what it says.
        refusal: ErrorMetadata,
        /// The service's clock, if it told.
        date: Option<DateTime>,
    },
}

impl AwsJsonOperation {
    /// Sends this and gives what comes back.
    pub async fn send(&self, body: &Bytes) -> Result<JsonResponse, CallError> {
        let client = self.client.as_ref().ok_or(SendError::NoCredentials(None))?;
        let headers =
            [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", self.target)];
        let (endpoint, path) = (&*self.endpoint, "/");
        let request = Request { method: "POST", endpoint, path, headers: &headers, body };
        let reply = client.send(request, MAX_RESPONSE_BYTES).await?;
        let date = date(&reply.headers);
        match reply.status {
            200..=299 if reply.is_complete => Ok(JsonResponse { body: reply.body, date }),
            200..=299 => Err(CallError::Incomplete),
            _ => Err(CallError::Service { refusal: service_error(&reply), date }),
        }
    }
}

/// What a service says of a call that it refuses: the code in a header or in the body, where it may
/// have a namespace before it and a URL behind it.
fn service_error(reply: &Response) -> ErrorMetadata {
    let body: Map<String, Value> = serde_json::from_slice(&reply.body).unwrap_or_default();
    let text = |name| body.get(name).and_then(Value::as_str);
    let code = reply.headers.get("x-amzn-errortype").or(text("code")).or(text("__type"));
    let message = text("message").or(text("Message")).or(text("errorMessage"));
    let mut refusal = ErrorMetadata::builder();
    if let Some(code) = code {
        let code = code.split(':').next().unwrap_or_default();
        refusal = refusal.code(code.rsplit('#').next().unwrap_or_default());
    }
    if let Some(message) = message {
        refusal = refusal.message(message);
    }
    if let Some(request) = reply.headers.get("x-amzn-requestid") {
        refusal = refusal.custom("aws_request_id", request);
    }
    refusal.build()
}

impl CallError {
    /// The service's code, if it gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::NotSent(_) | Self::Incomplete => None,
            Self::Service { refusal, .. } => refusal.code(),
        }
    }

    /// The service's clock, if it told.
    pub fn date(&self) -> Option<DateTime> {
        match self {
            Self::NotSent(_) | Self::Incomplete => None,
            Self::Service { date, .. } => *date,
        }
    }

    /// Whether there were no credentials.
    pub fn lacks_credentials(&self) -> bool {
        matches!(self, Self::NotSent(SendError::NoCredentials(_)))
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_runtime_api::http::Headers;

    use super::*;

    fn refusal(headers: &[(&'static str, &'static str)], body: &str) -> ErrorMetadata {
        let mut given = Headers::new();
        for (name, value) in headers {
            given.insert(*name, *value);
        }
        let body = body.as_bytes().to_vec();
        super::service_error(&Response { status: 400, headers: given, body, is_complete: true })
    }

    #[test]
    fn a_refusal_is_told_by_its_bare_code() {
        for code in [
            "ExpiredIteratorException",
            "com.amazonaws.dynamodb.v20120810#ExpiredIteratorException",
            "com.amazonaws.dynamodb#ExpiredIteratorException:http://internal.amazon.com/",
        ] {
            let of_type = format!(r#"{{"__type":"{code}","message":"it is old"}}"#);
            let of_code = format!(r#"{{"code":"{code}","Message":"it is old","message":null}}"#);
            for body in [of_type, of_code] {
                let refusal = refusal(&[("x-amzn-requestid", "7")], &body);
                assert_eq!(refusal.code(), Some("ExpiredIteratorException"), "{body}");
                assert_eq!(refusal.message(), Some("it is old"), "{body}");
                assert_eq!(refusal.extra("aws_request_id"), Some("7"));
            }
        }
        for body in ["", "<html>", "{}", r#"{"__type":7}"#] {
            assert_eq!(refusal(&[], body).code(), None, "{body}");
            let header = [("x-amzn-errortype", "ExpiredIteratorException")];
            assert_eq!(refusal(&header, body).code(), Some("ExpiredIteratorException"), "{body}");
        }
    }
}
