//! Calls of a service that speaks AWS JSON 1.0, for one that is called many times a second: what it
//! answers is ours to parse, and what it refuses is told by its own code.
//!
//! <https://smithy.io/2.0/aws/protocols/aws-json-1_0-protocol.html>

use aws_smithy_types::error::metadata::ErrorMetadata;
use bytes::Bytes;
use serde::Deserialize;
use thiserror::Error;

use super::signed::{Request, SignedClient, Unanswered};

/// An answer is not longer than this: a page has 1 MB of items, which JSON and base64 stretch.
const LONGEST_ANSWER: usize = 16 << 20;

/// One call of a service.
#[derive(Debug)]
pub struct JsonCall {
    /// None without credentials.
    pub client: Option<SignedClient>,
    /// The service's address.
    pub uri: String,
    /// The service's name and version, and the call's name.
    pub target: &'static str,
}

/// Why a call has no result.
#[derive(Debug, Error)]
pub enum CallError {
    /// There was no answer.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The service refuses it.
    #[error(transparent)]
    Refused(ErrorMetadata),
}

/// What a service says of a call that it refuses.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(rename = "__type")]
    code: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
}

impl JsonCall {
    /// Sends this and gives what comes back.
    pub async fn send(&self, body: &Bytes) -> Result<Vec<u8>, CallError> {
        let client = self.client.as_ref().ok_or(Unanswered::NoCredentials(None))?;
        let headers =
            [("content-type", "application/x-amz-json-1.0"), ("x-amz-target", self.target)];
        let request = Request { method: "POST", uri: &self.uri, headers: &headers, body };
        let reply = client.send(request, LONGEST_ANSWER).await?;
        match reply.status {
            200..=299 => Ok(reply.body),
            _ => Err(CallError::Refused(refusal(&reply.body))),
        }
    }
}

/// A code may have a namespace before it and a URL behind it.
fn refusal(body: &[u8]) -> ErrorMetadata {
    let refusal: Refusal = serde_json::from_slice(body).unwrap_or_default();
    let mut metadata = ErrorMetadata::builder();
    if let Some(code) = &refusal.code {
        let code = code.split(':').next().unwrap_or_default();
        metadata = metadata.code(code.rsplit('#').next().unwrap_or_default());
    }
    if let Some(message) = refusal.message {
        metadata = metadata.message(message);
    }
    metadata.build()
}

impl CallError {
    /// The service's code, if it gave one.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Unanswered(_) => None,
            Self::Refused(refusal) => refusal.code(),
        }
    }

    /// Whether there were no credentials.
    pub fn lacks_credentials(&self) -> bool {
        matches!(self, Self::Unanswered(Unanswered::NoCredentials(_)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_bare_code() {
        for code in [
            "ExpiredIteratorException",
            "com.amazonaws.dynamodb.v20120810#ExpiredIteratorException",
            "com.amazonaws.dynamodb#ExpiredIteratorException:http://internal.amazon.com/",
        ] {
            let body = format!(r#"{{"__type":"{code}","message":"it is old"}}"#);
            let refusal = refusal(body.as_bytes());
            assert_eq!(refusal.code(), Some("ExpiredIteratorException"));
            assert_eq!(refusal.message(), Some("it is old"));
        }
        for body in ["", "<html>", "{}", r#"{"__type":7}"#] {
            assert_eq!(refusal(body.as_bytes()).code(), None, "{body}");
        }
    }
}
