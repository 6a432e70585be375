//! Condition messages about the WebSocket API.

use super::outcome::EndpointFault;
use crate::delivery::gateway::PostResponse;
use crate::telemetry::{Problem, Reason};

/// Problem of an endpoint that rejects every post, as it rejected this one.
pub fn rejected(endpoint: &str, fault: EndpointFault, response: &PostResponse) -> Problem {
    let (reason, message) = match fault {
        EndpointFault::Forbidden => (
            Reason::GatewayForbidden,
            format!(
                "posting to {endpoint} failed: access denied; grant execute-api:ManageConnections, and check webSocket.domain and webSocket.stage"
            ),
        ),
        EndpointFault::WrongEndpoint => (
            Reason::GatewayMisconfigured,
            format!(
                "posting to {endpoint} failed: the endpoint is not a WebSocket API; check webSocket.domain and webSocket.stage"
            ),
        ),
        EndpointFault::Unreachable => (
            Reason::GatewayUnreachable,
            format!(
                "posting to {endpoint} failed: no connection; check webSocket.domain and the network"
            ),
        ),
        EndpointFault::UntrustedCertificate => {
            return Problem::untrusted_certificate(&format!("posting to {endpoint}"));
        }
        EndpointFault::NoCredentials => {
            let cause = match response {
                PostResponse::NoCredentials { cause } => Some(cause),
                _ => None,
            };
            return Problem::no_credentials(&format!("posting to {endpoint}"), cause);
        }
    };
    Problem::new(reason, message)
}

/// Problem of an endpoint that has given no usable response for 60 s.
pub fn unavailable(endpoint: &str) -> Problem {
    let message = format!(
        "posting to {endpoint} failed: no usable response; check API Gateway, messages older than delivery.maxRecordAgeSeconds are dropped"
    );
    Problem::new(Reason::GatewayUnavailable, message)
}

/// Problem of slow clients that cannot be disconnected.
pub fn disconnect_denied(endpoint: &str) -> Problem {
    let message = format!(
        "disconnecting slow clients from {endpoint} failed: access denied; grant execute-api:ManageConnections on DELETE/@connections/*, or change delivery.slowClient"
    );
    Problem::new(Reason::DisconnectForbidden, message)
}

/// Problem of an endpoint that reports every connection as closed.
pub fn all_gone(endpoint: &str) -> Problem {
    let message = format!(
        "rows of closed connections are kept: {endpoint} returns 410 for every connection; check webSocket.domain and webSocket.stage"
    );
    Problem::new(Reason::AllConnectionsGone, message)
}
