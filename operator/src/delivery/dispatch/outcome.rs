//! What an answer of the WebSocket API means. By HTTP status alone: bodies and error types are
//! missing, or not JSON, often enough.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>

use crate::delivery::gateway::PostResponse;

/// What follows from one post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostOutcome {
    /// The connection has the message.
    Delivered,
    /// The connection is gone, or not there yet: the row may have been written inside `$connect`.
    Gone,
    /// The message is over 128 KB.
    TooLarge,
    /// Rights or endpoint are wrong, for every connection: hold everything, drop nothing.
    Hold(EndpointFault),
    /// Too many posts, or a client that does not read.
    Throttled,
    /// Anything that may pass.
    Retry,
}

/// Why posts are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointFault {
    /// 401 or 403: the right is missing, or domain or stage are wrong.
    Forbidden,
    /// Another answer that no WebSocket API gives: the endpoint is not one.
    WrongEndpoint,
    /// The endpoint does not resolve, refuses connections, or fails TLS.
    Unreachable,
    /// The process has no AWS credentials.
    NoCredentials,
}

impl PostOutcome {
    /// Value of the metric's label.
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

/// What an answer means.
pub fn classify_response(answer: &PostResponse) -> PostOutcome {
    match *answer {
        PostResponse::Unreachable => PostOutcome::Hold(EndpointFault::Unreachable),
        PostResponse::NoCredentials => PostOutcome::Hold(EndpointFault::NoCredentials),
        PostResponse::NoResponse => PostOutcome::Retry,
        PostResponse::Status { status, names_connection } => match status {
            200..=299 => PostOutcome::Delivered,
            400 if names_connection => PostOutcome::Gone,
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
    fn every_status_has_its_outcome() {
        let of =
            |status| classify_response(&PostResponse::Status { status, names_connection: false });
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
            assert_eq!(of(status), expected, "{status}");
        }
    }

    #[test]
    fn a_malformed_connection_id_is_as_good_as_gone() {
        let answer = PostResponse::Status { status: 400, names_connection: true };
        assert_eq!(classify_response(&answer), PostOutcome::Gone);
    }

    #[test]
    fn no_connection_holds_and_no_answer_is_tried_again() {
        assert_eq!(
            classify_response(&PostResponse::Unreachable),
            PostOutcome::Hold(EndpointFault::Unreachable)
        );
        assert_eq!(classify_response(&PostResponse::NoResponse), PostOutcome::Retry);
    }
}
