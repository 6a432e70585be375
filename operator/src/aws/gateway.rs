//! API Gateway's `@connections` behind the trait `Gateway`.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_apigatewaymanagement::config::StalledStreamProtectionConfig;
use aws_sdk_apigatewaymanagement::primitives::Blob;
use aws_sdk_apigatewaymanagement::{Client, config};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use bytes::Bytes;

use super::Aws;
use super::error::{causes, has_cause};
use crate::delivery::{Answer, Gateway};

/// One WebSocket API.
#[derive(Debug)]
pub struct ApiGateway {
    client: Client,
}

impl ApiGateway {
    /// The API at this endpoint, `https://<domain>/<stage>`; requests are signed for this region.
    pub fn new(aws: &Aws, region: &str, endpoint: &str) -> Self {
        let config = config::Builder::from(&aws.region(region))
            .endpoint_url(endpoint)
            // Watches how fast a body passes; a post is small, and has its own limit of time.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Self { client: Client::from_conf(config) }
    }
}

impl Gateway for ApiGateway {
    async fn post(&self, connection_id: &str, message: &Bytes) -> Answer {
        let post = self
            .client
            .post_to_connection()
            .connection_id(connection_id)
            .data(Blob::new(message.to_vec()));
        // Of many kilobytes: only a post under way is to have it, not every message that waits.
        of_result(Box::pin(post.send()).await)
    }

    async fn disconnect(&self, connection_id: &str) -> Answer {
        let disconnect = self.client.delete_connection().connection_id(connection_id);
        of_result(Box::pin(disconnect.send()).await)
    }
}

fn of_result<T, E: Error + 'static>(answer: Result<T, SdkError<E, HttpResponse>>) -> Answer {
    match answer {
        // The SDK takes nothing but 2xx for an answer without error.
        Ok(_) => Answer::Status { status: 200, names_connection: false },
        Err(error) => of_error(&error),
    }
}

fn of_error<E: Error + 'static>(error: &SdkError<E, HttpResponse>) -> Answer {
    match (error.raw_response(), error) {
        (Some(response), _) => Answer::Status {
            status: response.status().as_u16(),
            names_connection: names_connection(response.body().bytes().unwrap_or_default()),
        },
        (None, _) if has_cause::<CredentialsError>(error) => Answer::NoCredentials,
        (None, SdkError::DispatchFailure(_)) if is_unreachable(error) => Answer::Unreachable,
        (None, _) => Answer::NoAnswer,
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
