//! The interface to the WebSocket API, which production, local mode and tests implement.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;

/// The `@connections` resource of a WebSocket API.
pub trait Gateway: fmt::Debug + Send + Sync + 'static {
    /// Posts a message to a connection, once. The response includes every failure.
    fn post<'a>(
        &'a self,
        connection_id: &'a str,
        message: &'a Bytes,
    ) -> BoxFuture<'a, PostResponse>;

    /// Closes a connection, once. The response includes every failure.
    fn disconnect<'a>(&'a self, connection_id: &'a str) -> BoxFuture<'a, PostResponse>;
}

/// The response to one request, or why there is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostResponse {
    /// An HTTP response.
    Status {
        status: u16,
        /// Whether the body mentions the connection id. API Gateway's 400 for a malformed id does.
        mentions_connection_id: bool,
    },
    /// The endpoint does not resolve, refuses connections, or fails TLS.
    Unreachable,
    /// The issuer of the endpoint's certificate is not trusted.
    UntrustedCertificate,
    /// There are no AWS credentials to sign the request with.
    NoCredentials {
        /// Why, as a condition names it.
        cause: String,
    },
    /// No usable response arrived in time. The request may have been processed.
    NoResponse,
}
