//! Implements the trait `Gateway` with the `@connections` API of API Gateway.
//!
//! <https://docs.aws.amazon.com/apigateway/latest/developerguide/apigateway-how-to-call-websocket-api-connections.html>

use aws_config::SdkConfig;
use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_apigatewaymanagement::config::Builder;
use aws_sdk_apigatewaymanagement::{Client, Error};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use bytes::Bytes;
use futures::future::BoxFuture;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::causes::{causes, has_cause, has_untrusted_certificate};
use super::config::AwsConfig;
use super::credentials::{NO_PROVIDER, credentials_cause};
use crate::aws::raw::clock_skew::CorrectedClock;
use crate::aws::raw::sigv4_client::{Request, Response, SendError, SigV4Client};
use crate::delivery::{Gateway, PostResponse};

/// The characters that a path segment contains without percent-encoding.
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The maximum length of a response body. The rest is ignored.
const MAX_RESPONSE_BYTES: usize = 16 * 1024;

/// A client of one WebSocket API.
#[derive(Debug)]
pub struct ApiGateway {
    /// Sends posts. `None` without credentials.
    raw: Option<SigV4Client>,
    /// Sends DeleteConnection.
    sdk: Client,
    endpoint: String,
}

impl ApiGateway {
    /// A client of the API at `https://<domain>/<stage>`. Requests are signed for `region`.
    pub fn new(aws: &AwsConfig, region: &str, endpoint: &str) -> Self {
        let config = aws.in_region(region);
        let raw = SigV4Client::new(&config, "execute-api");
        let sdk = sdk_client(&config, endpoint, raw.as_ref().map(SigV4Client::clock));
        Self { raw, sdk, endpoint: endpoint.to_owned() }
    }

    async fn post_raw(&self, connection_id: &str, message: &Bytes) -> PostResponse {
        let Some(client) = &self.raw else {
            return PostResponse::NoCredentials { cause: NO_PROVIDER.to_owned() };
        };
        let id = utf8_percent_encode(connection_id, UNRESERVED);
        let request = Request {
            method: "POST",
            endpoint: &self.endpoint,
            path: &format!("/@connections/{id}"),
            headers: &[("content-type", "application/octet-stream")],
            body: message,
        };
        match client.send(request, MAX_RESPONSE_BYTES).await {
            // The status decides, even if the body is incomplete.
            Ok(Response { status, body, .. }) => PostResponse::Status {
                status,
                mentions_connection_id: mentions_connection_id(&body),
            },
            Err(error) if has_untrusted_certificate(&error) => PostResponse::UntrustedCertificate,
            Err(error @ SendError::NoCredentials(_)) => {
                PostResponse::NoCredentials { cause: credentials_cause(&error) }
            }
            Err(SendError::Connection(error)) if is_unreachable(&error) => {
                PostResponse::Unreachable
            }
            Err(_) => PostResponse::NoResponse,
        }
    }
}

impl Gateway for ApiGateway {
    fn post<'a>(
        &'a self,
        connection_id: &'a str,
        message: &'a Bytes,
    ) -> BoxFuture<'a, PostResponse> {
        Box::pin(self.post_raw(connection_id, message))
    }

    fn disconnect<'a>(&'a self, connection_id: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            if self.raw.is_none() {
                return PostResponse::NoCredentials { cause: NO_PROVIDER.to_owned() };
            }
            let delete = self.sdk.delete_connection().connection_id(connection_id);
            match Box::pin(delete.send()).await {
                // The client does not return which 2xx it was.
                Ok(_) => PostResponse::Status { status: 200, mentions_connection_id: false },
                Err(error) => classify_sdk_error(error),
            }
        })
    }
}

/// The SDK's client for the API at this endpoint, configured as the raw path is.
fn sdk_client(config: &SdkConfig, endpoint: &str, clock: Option<CorrectedClock>) -> Client {
    let mut config = Builder::from(config);
    if let Some(clock) = clock {
        // Posts precede every disconnect, so their responses have shown the service's clock. The
        // SDK's own correction would be added to theirs.
        config = config.time_source(clock).disable_clock_skew_correction(true);
    }
    let config = config
        .endpoint_url(endpoint)
        // The SDK rejects an explicit endpoint together with `AWS_USE_FIPS_ENDPOINT` or
        // `AWS_USE_DUALSTACK_ENDPOINT`.
        .use_fips(false)
        .use_dual_stack(false)
        .build();
    Client::from_conf(config)
}

/// Classifies an error of the SDK's client by its type, or else by the HTTP status. API Gateway
/// often sends neither a type nor a body.
fn classify_sdk_error<E>(error: SdkError<E, HttpResponse>) -> PostResponse
where
    E: std::error::Error + 'static,
    Error: From<SdkError<E, HttpResponse>>,
{
    let Some(response) = error.raw_response() else {
        return if has_untrusted_certificate(&error) {
            PostResponse::UntrustedCertificate
        } else if has_cause::<CredentialsError>(&error) {
            PostResponse::NoCredentials { cause: credentials_cause(&error) }
        } else if is_unreachable(&error) {
            PostResponse::Unreachable
        } else {
            PostResponse::NoResponse
        };
    };
    let mentions_connection_id = response.body().bytes().is_some_and(mentions_connection_id);
    let status = response.status().as_u16();
    let status = match Error::from(error) {
        Error::ForbiddenException(_) => 403,
        Error::GoneException(_) => 410,
        Error::PayloadTooLargeException(_) => 413,
        Error::LimitExceededException(_) => 429,
        _ => status,
    };
    PostResponse::Status { status, mentions_connection_id }
}

/// Whether a body is like `{"message": "Invalid connectionId: …", "connectionId": "…"}`.
fn mentions_connection_id(body: &[u8]) -> bool {
    String::from_utf8_lossy(body).to_ascii_lowercase().contains("connectionid")
}

/// Whether no connection was established, so that the request cannot have arrived.
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

#[cfg(test)]
mod tests {
    use aws_config::ConfigLoader;
    use aws_credential_types::Credentials;
    use aws_credential_types::credential_fn::provide_credentials_fn;

    use super::*;
    use crate::aws::config::defaults;

    /// The responses to a post and to a disconnection.
    async fn responses(config: ConfigLoader) -> [PostResponse; 2] {
        let aws = AwsConfig { sdk_config: config.region("eu-west-1").load().await };
        // Nothing listens on this port.
        let gateway = ApiGateway::new(&aws, "eu-west-1", "http://127.0.0.1:9/api");
        [gateway.post("a=", &Bytes::new()).await, gateway.disconnect("a=").await]
    }

    #[tokio::test]
    async fn reports_missing_credentials() {
        let failing = provide_credentials_fn(async || Err(CredentialsError::not_loaded("no key")));
        let expected =
            |cause: &str| [(); 2].map(|()| PostResponse::NoCredentials { cause: cause.to_owned() });
        let failing = defaults().credentials_provider(failing);
        assert_eq!(responses(failing).await, expected("no key"));
        assert_eq!(responses(defaults().no_credentials()).await, expected(NO_PROVIDER));
    }

    #[tokio::test]
    async fn uses_the_given_endpoint_despite_fips_and_dual_stack() {
        let credentials = Credentials::new("id", "secret", None, None, "test");
        let config = defaults().credentials_provider(credentials);
        let config = config.use_fips(true).use_dual_stack(true);
        // Both tried to connect.
        assert_eq!(responses(config).await, [PostResponse::Unreachable, PostResponse::Unreachable]);
    }
}
