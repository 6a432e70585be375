//! Requests that AWS takes for ours, at the cost of a signature and a connection's turn: the SDK's own
//! credentials, signer and pool of connections, without what it builds around each call, which took
//! nearly half of a post (`docs/performance.md`).

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

use super::clock_skew::ClockSkew;
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
    /// What the SDK's parts look for in each other.
    components: RuntimeComponents,
    config: ConfigBag,
    clock_skew: ClockSkew,
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The method.
    pub method: &'static str,
    /// The service's address.
    pub endpoint: &'a str,
    /// The path behind it, every part of it encoded.
    pub path: &'a str,
    /// Names in lower case, with their values; all of them are signed.
    pub headers: &'a [(&'static str, &'a str)],
    /// The body.
    pub body: &'a Bytes,
}

/// What comes back.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: u16,
    /// The headers.
    pub headers: Headers,
    /// The body, as far as it came.
    pub body: Vec<u8>,
    /// Whether that is all of it: it may break off, or be longer than was asked for.
    pub is_complete: bool,
}

/// Why nothing came back.
#[derive(Debug, Error)]
pub enum SendError {
    /// There is nothing to sign it with.
    #[error("there are no AWS credentials")]
    NoCredentials(#[source] Option<BoxError>),
    /// It cannot be signed or sent as it is.
    #[error("the request cannot be sent")]
    Malformed(#[source] BoxError),
    /// There was no connection, or it broke.
    #[error("the connection failed")]
    Connection(#[source] ConnectorError),
    /// It took too long.
    #[error("no answer within {} seconds", ATTEMPT_TIMEOUT.as_secs())]
    TimedOut,
}

impl SigV4Client {
    /// Signs with the credentials of this configuration, if it knows where to find some, for its
    /// region.
    pub fn new(config: &SdkConfig, service: &'static str) -> Option<Self> {
        let credentials = SharedIdentityResolver::new(config.credentials_provider()?);
        let cache = config.identity_cache().unwrap_or_else(|| IdentityCache::lazy().build());
        let components = components(config, &credentials, &cache)?;
        let mut settings = HttpConnectorSettings::builder();
        let limits = config.timeout_config();
        settings.set_connect_timeout(limits.and_then(|limits| limits.connect_timeout()));
        Some(Self {
            service,
            region: config.region()?.to_string(),
            connector: config.http_client()?.http_connector(&settings.build(), &components),
            credentials,
            cache,
            components,
            config: ConfigBag::base(),
            clock_skew: ClockSkew::new(config.disable_clock_skew_correction() != Some(true)),
        })
    }

    /// Sends a request, and gives so many bytes of its answer's body at the most.
    pub async fn send(&self, request: Request<'_>, most: usize) -> Result<Response, SendError> {
        let reply = timeout(ATTEMPT_TIMEOUT, self.send_once(request, most));
        reply.await.unwrap_or(Err(SendError::TimedOut))
    }

    async fn send_once(&self, request: Request<'_>, most: usize) -> Result<Response, SendError> {
        let mut request = self.signed(request).await?;
        let connection = CaptureSmithyConnection::new();
        request.add_extension(connection.clone());
        let sent = self.time();
        let answer = self.connector.call(request).await.map_err(SendError::Connection)?;
        self.clock_skew.learn(&answer, sent, self.time());
        let reply = reply(answer, most).await;
        // The connection that was used last is the next to be used: one whose other end is unwell would
        // be for ever.
        let is_unwell = matches!(reply.status, 500 | 502..=504) || !reply.is_complete;
        if let Some(connection) = connection.get().filter(|_| is_unwell) {
            connection.poison();
        }
        Ok(reply)
    }

    fn time(&self) -> SystemTime {
        self.components.time_source().unwrap_or_default().now()
    }

    async fn signed(&self, request: Request<'_>) -> Result<HttpRequest, SendError> {
        let Self { credentials, cache, components, config, .. } = self;
        let identity = cache.resolve_cached_identity(credentials.clone(), components, config);
        let identity = identity.await.map_err(|why| SendError::NoCredentials(Some(why)))?;
        self.sign(request, &identity).map_err(SendError::Malformed)
    }

    fn sign(&self, of: Request<'_>, identity: &Identity) -> Result<HttpRequest, BoxError> {
        let Request { method, endpoint, path, headers, body } = of;
        let mut request = HttpRequest::new(SdkBody::from(body.clone()));
        request.set_method(method)?;
        request.set_uri(path)?;
        request.uri_mut().set_endpoint(endpoint)?;

        let signing = SigningParams::builder()
            .identity(identity)
            .region(&self.region)
            .name(self.service)
            .time(self.clock_skew.apply(self.time()))
            .settings(SigningSettings::default())
            .build()?;
        let (uri, body) = (request.uri(), SignableBody::Bytes(body));
        let signable = SignableRequest::new(method, uri, headers.iter().copied(), body)?;
        let (signature, _) = sign(signable, &signing.into())?.into_parts();

        let sent = request.headers_mut();
        sent.insert("user-agent", USER_AGENT);
        for (name, value) in headers {
            sent.try_insert(*name, value.to_string())?;
        }
        for header in signature.into_parts().0 {
            sent.try_insert(header.name(), header.value().to_owned())?;
        }
        Ok(request)
    }
}

/// Reads to the end, so that the connection is free again, unless that is too far.
async fn reply(mut answer: HttpResponse, most: usize) -> Response {
    let mut parts = ByteStream::new(answer.take_body());
    let mut body = Vec::new();
    let is_whole = loop {
        match parts.next().await {
            Some(Ok(part)) if body.len() + part.len() <= most => body.extend_from_slice(&part),
            Some(_) => break false,
            None => break true,
        }
    };
    let headers = std::mem::take(answer.headers_mut());
    Response { status: answer.status().as_u16(), headers, body, is_complete: is_whole }
}

/// The SDK's parts ask these for the time and to wait; what else has to be there is never asked.
fn components(
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

    static NOTHING: Bytes = Bytes::new();
    const REQUEST: Request<'_> =
        Request { method: "POST", endpoint: "http://a", path: "/b", headers: &[], body: &NOTHING };

    #[derive(Debug)]
    struct Nobody;

    impl ProvideCredentials for Nobody {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::not_loaded("nobody")))
        }
    }

    async fn client(credentials: impl ProvideCredentials + 'static) -> SigV4Client {
        let loader = crate::aws::config::defaults().region("eu-west-1");
        let config = loader.credentials_provider(credentials).load().await;
        SigV4Client::new(&config, "execute-api").unwrap()
    }

    #[tokio::test]
    async fn without_credentials_nothing_is_sent() {
        let client = client(Nobody).await;
        let sent = client.send(REQUEST, 0).await;
        assert!(matches!(sent, Err(SendError::NoCredentials(_))), "{sent:?}");
    }

    #[tokio::test]
    async fn the_token_of_passing_credentials_is_sent_and_signed() {
        let token = Some("token".to_owned());
        let credentials = Credentials::new("id", "secret", token, None, "test");
        let client = client(credentials.clone()).await;
        let request = client.sign(REQUEST, &credentials.into()).unwrap();
        assert_eq!(request.headers().get("x-amz-security-token"), Some("token"));
        let signed = request.headers().get("authorization").unwrap();
        assert!(signed.contains("SignedHeaders=host;x-amz-date;x-amz-security-token"), "{signed}");
    }

    #[tokio::test]
    async fn an_address_that_is_none_is_an_error() {
        let client = client(Credentials::new("id", "secret", None, None, "test")).await;
        for endpoint in ["", "/api", "a", "http:///api", "::"] {
            let sent = client.send(Request { endpoint, ..REQUEST }, 0).await;
            assert!(matches!(sent, Err(SendError::Malformed(_))), "{endpoint}: {sent:?}");
        }
    }
}
