//! What an answer of the WebSocket API means. By HTTP status alone: bodies and error types are
//! missing, or not JSON, often enough.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>

use crate::delivery::gateway::Answer;

/// What follows from one post.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The connection has the message.
    Delivered,
    /// The connection is gone, or not there yet: the row may have been written inside `$connect`.
    Gone,
    /// The message is over 128 KB.
    TooLarge,
    /// Rights or endpoint are wrong, for every connection: hold everything, drop nothing.
    Hold(Hold),
    /// Too many posts, or a client that does not read.
    Throttled,
    /// Anything that may pass.
    Retry,
}

/// Why posts are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// 401 or 403: the right is missing, or domain or stage are wrong.
    Forbidden,
    /// Another answer that no WebSocket API gives: the endpoint is not one.
    WrongEndpoint,
    /// The endpoint does not resolve, refuses connections, or fails TLS.
    Unreachable,
    /// The process has no AWS credentials.
    NoCredentials,
}

impl Outcome {
    /// Value of the metric's label.
    pub fn word(self) -> &'static str {
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
pub fn outcome(answer: &Answer) -> Outcome {
    match *answer {
        Answer::Unreachable => Outcome::Hold(Hold::Unreachable),
        Answer::NoCredentials => Outcome::Hold(Hold::NoCredentials),
        Answer::NoAnswer => Outcome::Retry,
        Answer::Status { status, names_connection } => match status {
            200..=299 => Outcome::Delivered,
            400 if names_connection => Outcome::Gone,
            401 | 403 => Outcome::Hold(Hold::Forbidden),
            408 | 500..=599 => Outcome::Retry,
            410 => Outcome::Gone,
            413 => Outcome::TooLarge,
            429 => Outcome::Throttled,
            _ => Outcome::Hold(Hold::WrongEndpoint),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_its_outcome() {
        let of = |status| outcome(&Answer::Status { status, names_connection: false });
        for (status, expected) in [
            (200, Outcome::Delivered),
            (204, Outcome::Delivered),
            (302, Outcome::Hold(Hold::WrongEndpoint)),
            (400, Outcome::Hold(Hold::WrongEndpoint)),
            (401, Outcome::Hold(Hold::Forbidden)),
            (403, Outcome::Hold(Hold::Forbidden)),
            (404, Outcome::Hold(Hold::WrongEndpoint)),
            (408, Outcome::Retry),
            (410, Outcome::Gone),
            (413, Outcome::TooLarge),
            (429, Outcome::Throttled),
            (500, Outcome::Retry),
            (503, Outcome::Retry),
        ] {
            assert_eq!(of(status), expected, "{status}");
        }
    }

    #[test]
    fn a_malformed_connection_id_is_as_good_as_gone() {
        let answer = Answer::Status { status: 400, names_connection: true };
        assert_eq!(outcome(&answer), Outcome::Gone);
    }

    #[test]
    fn no_connection_holds_and_no_answer_is_tried_again() {
        assert_eq!(outcome(&Answer::Unreachable), Outcome::Hold(Hold::Unreachable));
        assert_eq!(outcome(&Answer::NoAnswer), Outcome::Retry);
    }
}
