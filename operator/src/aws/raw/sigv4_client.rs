//! HTTP client that signs requests with Signature Version 4.
//!
//! It uses the SDK's credentials cache, signer and connection pool, but not the SDK's clients. A
//! client's work around each request took nearly half of the time of a post
//! (`docs/performance.md`).

use std::sync::Arc;
use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use aws_smithy_runtime::client::auth::no_auth::{NO_AUTH_SCHEME_ID, NoAuthScheme};
use aws_smithy_runtime::client::identity::IdentityCache;
use aws_smithy_runtime::client::orchestrator::endpoints::StaticUriEndpointResolver;
use aws_smithy_runtime::client::retries::strategy::NeverRetryStrategy;
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::auth::static_resolver::StaticAuthSchemeOptionResolver;
use aws_smithy_runtime_api::client::connection::CaptureSmithyConnection;
use aws_smithy_runtime_api::client::http::{
    HttpClient as _, HttpConnector as _, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::identity::{
    Identity, ResolveCachedIdentity as _, SharedIdentityCache, SharedIdentityResolver,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::body::SdkBody;
use aws_smithy_types::byte_stream::ByteStream;
use aws_smithy_types::config_bag::ConfigBag;
use bytes::Bytes;
use thiserror::Error;
use tokio::time::timeout;

use super::clock_skew::{ClockSkew, CorrectedClock};
use crate::aws::config::ATTEMPT_TIMEOUT;

const USER_AGENT: &str = concat!("stream-notifier/", env!("CARGO_PKG_VERSION"));

/// Sends requests to one service in one region.
#[derive(Debug)]
pub struct SigV4Client {
    service: &'static str,
    region: String,
    connector: SharedHttpConnector,
    credentials: SharedIdentityResolver,
    cache: SharedIdentityCache,
    /// The dependencies that the SDK's parts require.
    components: RuntimeComponents,
    config: ConfigBag,
    clock_skew: Arc<ClockSkew>,
}

/// A request to sign and send.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    pub method: &'static str,
    /// The endpoint of the service.
    pub endpoint: &'a str,
    /// The path after the endpoint, percent-encoded.
    pub path: &'a str,
    /// The signed headers, with names in lower case.
    pub headers: &'a [(&'static str, &'a str)],
    pub body: &'a Bytes,
}

/// A response of any status.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    /// The received part of the body.
    pub body: Vec<u8>,
    /// Whether the whole body was received. It can break off, or exceed its maximum length.
    pub is_complete: bool,
}

/// A request without a response.
#[derive(Debug, Error)]
pub enum SendError {
    /// No credentials are available.
    #[error("no AWS credentials are available")]
    NoCredentials(#[source] Option<BoxError>),
    /// The request is malformed, for example its endpoint.
    #[error("the request cannot be signed")]
    Malformed(#[source] BoxError),
    /// The connection could not be established, or it broke.
    #[error("the connection failed")]
    Connection(#[source] ConnectorError),
    /// The request exceeded [`ATTEMPT_TIMEOUT`].
    #[error("no response within {} s", ATTEMPT_TIMEOUT.as_secs())]
    TimedOut,
}

impl SigV4Client {
    /// A client that signs with the credentials and region of this configuration. `None` if it has
    /// no provider of credentials.
    pub fn new(config: &SdkConfig, service: &'static str) -> Option<Self> {
        let credentials = SharedIdentityResolver::new(config.credentials_provider()?);
        let cache = config.identity_cache().unwrap_or_else(|| IdentityCache::lazy().build());
        let components = runtime_components(config, &credentials, &cache)?;
        let mut settings = HttpConnectorSettings::builder();
        let timeouts = config.timeout_config();
        settings.set_connect_timeout(timeouts.and_then(|timeouts| timeouts.connect_timeout()));
        Some(Self {
            service,
            region: config.region()?.to_string(),
            connector: config.http_client()?.http_connector(&settings.build(), &components),
            credentials,
            cache,
            components,
            config: ConfigBag::base(),
            clock_skew: Arc::new(ClockSkew::new(
                config.disable_clock_skew_correction() != Some(true),
            )),
        })
    }

    /// Sends a request once, and reads at most `max_body_bytes` of the response.
    pub async fn send(
        &self,
        request: Request<'_>,
        max_body_bytes: usize,
    ) -> Result<Response, SendError> {
        let response = timeout(ATTEMPT_TIMEOUT, self.send_once(request, max_body_bytes));
        response.await.unwrap_or(Err(SendError::TimedOut))
    }

    async fn send_once(
        &self,
        request: Request<'_>,
        max_body_bytes: usize,
    ) -> Result<Response, SendError> {
        let mut request = self.sign(request).await?;
        let connection = CaptureSmithyConnection::new();
        request.add_extension(connection.clone());
        let sent = self.now();
        let response = self.connector.call(request).await.map_err(SendError::Connection)?;
        self.clock_skew.update(&response, sent, self.now());
        let response = read_response(response, max_body_bytes).await;
        // The pool reuses the most recently used connection first, so a connection to a broken
        // server would be reused indefinitely.
        let is_broken = matches!(response.status, 500 | 502..=504) || !response.is_complete;
        if let Some(connection) = connection.get().filter(|_| is_broken) {
            connection.poison();
        }
        Ok(response)
    }

    /// The clock that this client signs with.
    pub fn clock(&self) -> CorrectedClock {
        let local = self.components.time_source().unwrap_or_default();
        CorrectedClock { skew: self.clock_skew.clone(), local }
    }

    fn now(&self) -> SystemTime {
        self.components.time_source().unwrap_or_default().now()
    }

    async fn sign(&self, request: Request<'_>) -> Result<HttpRequest, SendError> {
        let Self { credentials, cache, components, config, .. } = self;
        let identity = cache.resolve_cached_identity(credentials.clone(), components, config);
        let identity = identity.await.map_err(|error| SendError::NoCredentials(Some(error)))?;
        self.sign_with(&identity, request).map_err(SendError::Malformed)
    }

    fn sign_with(
        &self,
        identity: &Identity,
        request: Request<'_>,
    ) -> Result<HttpRequest, BoxError> {
        let Request { method, endpoint, path, headers, body } = request;
        let mut request = HttpRequest::new(SdkBody::from(body.clone()));
        request.set_method(method)?;
        request.set_uri(path)?;
        request.uri_mut().set_endpoint(endpoint)?;

        let params = SigningParams::builder()
            .identity(identity)
            .region(&self.region)
            .name(self.service)
            .time(self.clock_skew.apply(self.now()))
            .settings(SigningSettings::default())
            .build()?;
        let (uri, body) = (request.uri(), SignableBody::Bytes(body));
        let signable = SignableRequest::new(method, uri, headers.iter().copied(), body)?;
        let (signature, _) = sign(signable, &params.into())?.into_parts();

        let request_headers = request.headers_mut();
        request_headers.insert("user-agent", USER_AGENT);
        for (name, value) in headers {
            request_headers.try_insert(*name, value.to_string())?;
        }
        for header in signature.into_parts().0 {
            request_headers.try_insert(header.name(), header.value().to_owned())?;
        }
        Ok(request)
    }
}

/// Reads the body to its end, so that the connection returns to the pool, or to its maximum length.
async fn read_response(mut response: HttpResponse, max_body_bytes: usize) -> Response {
    let mut chunks = ByteStream::new(response.take_body());
    let mut body = Vec::new();
    let is_complete = loop {
        match chunks.next().await {
            Some(Ok(chunk)) if body.len() + chunk.len() <= max_body_bytes => {
                body.extend_from_slice(&chunk);
            }
            Some(_) => break false,
            None => break true,
        }
    };
    let headers = std::mem::take(response.headers_mut());
    Response { status: response.status().as_u16(), headers, body, is_complete }
}

/// Builds the SDK's runtime components. Only the time source and the sleep implementation are used.
/// The builder requires the others.
fn runtime_components(
    config: &SdkConfig,
    credentials: &SharedIdentityResolver,
    cache: &SharedIdentityCache,
) -> Option<RuntimeComponents> {
    RuntimeComponents::builder("signed requests")
        .with_sleep_impl(config.sleep_impl())
        .with_time_source(config.time_source())
        .with_identity_cache(Some(cache.clone()))
        .with_identity_resolver(NO_AUTH_SCHEME_ID, credentials.clone())
        .with_auth_scheme(NoAuthScheme::new())
        .with_auth_scheme_option_resolver(Some(StaticAuthSchemeOptionResolver::new(vec![])))
        .with_endpoint_resolver(Some(StaticUriEndpointResolver::uri("")))
        .with_retry_strategy(Some(NeverRetryStrategy::new()))
        .build()
        .ok()
}

#[cfg(test)]
mod tests {
    use aws_credential_types::Credentials;
    use aws_credential_types::provider::error::CredentialsError;
    use aws_credential_types::provider::{ProvideCredentials, future};

    use super::*;

    static EMPTY: Bytes = Bytes::new();
    const REQUEST: Request<'_> =
        Request { method: "POST", endpoint: "http://a", path: "/b", headers: &[], body: &EMPTY };

    #[derive(Debug)]
    struct EmptyProvider;

    impl ProvideCredentials for EmptyProvider {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("none")))
        }
    }

    async fn client(credentials: impl ProvideCredentials + 'static) -> SigV4Client {
        let loader = crate::aws::config::defaults().region("eu-west-1");
        let config = loader.credentials_provider(credentials).load().await;
        SigV4Client::new(&config, "execute-api").unwrap()
    }

    #[tokio::test]
    async fn fails_without_credentials() {
        let client = client(EmptyProvider).await;
        let result = client.send(REQUEST, 0).await;
        assert!(matches!(result, Err(SendError::NoCredentials(_))), "{result:?}");
    }

    #[tokio::test]
    async fn signs_the_session_token_of_temporary_credentials() {
        let token = Some("token".to_owned());
        let credentials = Credentials::new("id", "secret", token, None, "test");
        let client = client(credentials.clone()).await;
        let request = client.sign_with(&credentials.into(), REQUEST).unwrap();
        assert_eq!(request.headers().get("x-amz-security-token"), Some("token"));
        let authorization = request.headers().get("authorization").unwrap();
        assert!(
            authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"),
            "{authorization}"
        );
    }

    #[tokio::test]
    async fn rejects_malformed_endpoints() {
        let client = client(Credentials::new("id", "secret", None, None, "test")).await;
        for endpoint in ["", "/api", "a", "http:///api", "::"] {
            let result = client.send(Request { endpoint, ..REQUEST }, 0).await;
            assert!(matches!(result, Err(SendError::Malformed(_))), "{endpoint}: {result:?}");
        }
    }
}
