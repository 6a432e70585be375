//! API Gateway's `@connections` behind the trait `Gateway`.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>

use bytes::Bytes;
use futures::future::BoxFuture;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::Aws;
use super::error::causes;
use super::signed::{Reply, Request, SignedClient, Unanswered};
use crate::delivery::{Answer, Gateway};

/// What a path's segment holds as it is.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// More of an answer than this is not looked at.
const LONGEST_ANSWER: usize = 16 * 1024;

/// One WebSocket API.
#[derive(Debug)]
pub struct ApiGateway {
    /// None without credentials.
    client: Option<SignedClient>,
    endpoint: String,
}

impl ApiGateway {
    /// The API at this endpoint, `https://<domain>/<stage>`; requests are signed for this region.
    pub fn new(aws: &Aws, region: &str, endpoint: &str) -> Self {
        let client = SignedClient::new(&aws.region(region), "execute-api");
        Self { client, endpoint: endpoint.to_owned() }
    }

    async fn call(
        &self,
        method: &'static str,
        connection_id: &str,
        headers: &[(&'static str, &str)],
        body: &Bytes,
    ) -> Answer {
        let Some(client) = &self.client else {
            return Answer::NoCredentials;
        };
        let id = utf8_percent_encode(connection_id, UNRESERVED);
        let path = format!("/@connections/{id}");
        let request = Request { method, endpoint: &self.endpoint, path: &path, headers, body };
        match client.send(request, LONGEST_ANSWER).await {
            // The status tells, even where its explanation breaks off.
            Ok(Reply { status, body, .. }) => {
                Answer::Status { status, names_connection: names_connection(&body) }
            }
            Err(Unanswered::NoCredentials(_)) => Answer::NoCredentials,
            Err(Unanswered::Connection(error)) if is_unreachable(&error) => Answer::Unreachable,
            Err(_) => Answer::NoAnswer,
        }
    }
}

impl Gateway for ApiGateway {
    fn post<'a>(&'a self, connection_id: &'a str, message: &'a Bytes) -> BoxFuture<'a, Answer> {
        Box::pin(async move {
            let headers = [("content-type", "application/octet-stream")];
            // Of many kilobytes: only a post under way is to have it, not every message that waits.
            Box::pin(self.call("POST", connection_id, &headers, message)).await
        })
    }

    fn disconnect<'a>(&'a self, connection_id: &'a str) -> BoxFuture<'a, Answer> {
        Box::pin(
            async move { Box::pin(self.call("DELETE", connection_id, &[], &Bytes::new())).await },
        )
    }
}

/// API Gateway's `{"message": "Invalid connectionId: …", "connectionId": "…"}`.
fn names_connection(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).to_ascii_lowercase().contains("connectionid")
}

/// Whether no connection was made, so that the request cannot have arrived.
fn is_unreachable(error: &(dyn std::error::Error + 'static)) -> bool {
    causes(error).any(|cause| {
        let refused = cause
            .downcast_ref::<hyper_util::client::legacy::Error>()
            .is_some_and(hyper_util::client::legacy::Error::is_connect);
        refused
            // The SDK's type for this is private.
            || cause.to_string().starts_with("HTTP connect timeout")
    })
}
