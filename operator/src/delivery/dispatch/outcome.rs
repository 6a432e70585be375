//! Classifies the responses of the WebSocket API.
//!
//! Only the HTTP status decides, because bodies and error types are often missing or not JSON.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>

use crate::delivery::gateway::PostResponse;

/// The outcome of one post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostOutcome {
    /// The connection received the message.
    Delivered,
    /// The connection is closed, or not yet established: `$connect` can write the row before.
    Gone,
    /// The message is over 128 KiB.
    TooLarge,
    /// Permissions or the endpoint are wrong for every connection. All posts must be held.
    Hold(EndpointFault),
    /// The account or a client that does not read is throttled.
    Throttled,
    /// A problem that can pass by itself.
    Retry,
}

/// Why posts are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointFault {
    /// 401 or 403: the permission is missing, or the domain or stage is wrong.
    Forbidden,
    /// A response that no WebSocket API gives.
    WrongEndpoint,
    /// The endpoint does not resolve, refuses connections, or fails TLS.
    Unreachable,
    UntrustedCertificate,
    NoCredentials,
}

impl PostOutcome {
    /// Value of the metric label `outcome`.
    pub fn metric_label(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Gone => "gone",
            Self::TooLarge => "too_large",
            Self::Hold(_) => "endpoint_error",
            Self::Throttled => "throttled",
            Self::Retry => "unavailable",
        }
    }
}

/// Classifies a response.
pub fn classify_response(response: &PostResponse) -> PostOutcome {
    match *response {
        PostResponse::Unreachable => PostOutcome::Hold(EndpointFault::Unreachable),
        PostResponse::UntrustedCertificate => {
            PostOutcome::Hold(EndpointFault::UntrustedCertificate)
        }
        PostResponse::NoCredentials { .. } => PostOutcome::Hold(EndpointFault::NoCredentials),
        PostResponse::NoResponse => PostOutcome::Retry,
        PostResponse::Status { status, mentions_connection_id } => match status {
            200..=299 => PostOutcome::Delivered,
            400 if mentions_connection_id => PostOutcome::Gone,
            401 | 403 => PostOutcome::Hold(EndpointFault::Forbidden),
            408 | 500..=599 => PostOutcome::Retry,
            410 => PostOutcome::Gone,
            413 => PostOutcome::TooLarge,
            429 => PostOutcome::Throttled,
            _ => PostOutcome::Hold(EndpointFault::WrongEndpoint),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classifies_each_status() {
        for (status, expected) in [
            (200, PostOutcome::Delivered),
            (204, PostOutcome::Delivered),
            (302, PostOutcome::Hold(EndpointFault::WrongEndpoint)),
            (400, PostOutcome::Hold(EndpointFault::WrongEndpoint)),
            (401, PostOutcome::Hold(EndpointFault::Forbidden)),
            (403, PostOutcome::Hold(EndpointFault::Forbidden)),
            (404, PostOutcome::Hold(EndpointFault::WrongEndpoint)),
            (408, PostOutcome::Retry),
            (410, PostOutcome::Gone),
            (413, PostOutcome::TooLarge),
            (429, PostOutcome::Throttled),
            (500, PostOutcome::Retry),
            (503, PostOutcome::Retry),
        ] {
            let response = PostResponse::Status { status, mentions_connection_id: false };
            assert_eq!(classify_response(&response), expected, "{status}");
        }
    }

    #[test]
    fn treats_a_malformed_connection_id_as_gone() {
        let response = PostResponse::Status { status: 400, mentions_connection_id: true };
        assert_eq!(classify_response(&response), PostOutcome::Gone);
    }

    #[test]
    fn holds_without_a_connection_and_retries_without_a_response() {
        assert_eq!(
            classify_response(&PostResponse::Unreachable),
            PostOutcome::Hold(EndpointFault::Unreachable)
        );
        assert_eq!(classify_response(&PostResponse::NoResponse), PostOutcome::Retry);
    }
}
