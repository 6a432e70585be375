//! The WebSocket API, whichever client posts to it.

use std::fmt;

use bytes::Bytes;
use futures::future::BoxFuture;

/// The WebSocket API's `@connections`.
pub trait Gateway: fmt::Debug + Send + Sync + 'static {
    /// Posts a message to a connection, once; never fails, but says what came back.
    fn post<'a>(
        &'a self,
        connection_id: &'a str,
        message: &'a Bytes,
    ) -> BoxFuture<'a, PostResponse>;

    /// Closes a connection; never fails, but says what came back.
    fn disconnect<'a>(&'a self, connection_id: &'a str) -> BoxFuture<'a, PostResponse>;
}

/// What came back of one post.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PostResponse {
    /// An HTTP answer.
    Status {
        /// Its status.
        status: u16,
        /// Whether its body names the connection id (API Gateway's 400 for a malformed one).
        names_connection: bool,
    },
    /// No connection to the endpoint: it does not resolve, refuses, or fails TLS.
    Unreachable,
    /// There are no AWS credentials to sign the request with.
    NoCredentials,
    /// The request may have arrived, but no usable answer came in time.
    NoResponse,
}
