//! AWS configuration of the process: credentials, endpoints, timeouts and the HTTP client.
//!
//! The SDK's own retries are off, because every attempt must pass the operator's rate limits.

use std::path::PathBuf;
use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
#[cfg(feature = "local")]
use aws_credential_types::Credentials;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::ca_bundle::{CaBundleError, trust_store};
use super::credentials::ReloadingCredentials;

/// Prevents the SDK from looking up a region. Each client sets its own region.
const PLACEHOLDER_REGION: &str = "us-east-1";

/// The timeout of establishing a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The timeout of one request, from signing to the end of the response.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// The SDK's defaults, with a pool of its own.
#[cfg(any(test, feature = "local"))]
pub(crate) fn defaults() -> ConfigLoader {
    defaults_with(http_client(TrustStore::default()))
}

/// The SDK's defaults with one HTTP connection pool for all clients.
fn defaults_with(http: SharedHttpClient) -> ConfigLoader {
    aws_config::defaults(BehaviorVersion::latest()).http_client(http)
}

/// An HTTP connection pool, which respects the proxy environment variables.
fn http_client(trusted: TrustStore) -> SharedHttpClient {
    // The builder cannot fail, but returns a result.
    let tls = TlsContext::builder().with_trust_store(trusted).build().unwrap_or_default();
    Builder::new().build_with_connector_fn(move |settings, components| {
        let mut connector = Connector::builder()
            .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
            .tls_context(tls.clone());
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    })
}

/// AWS configuration of the process, without a region.
#[derive(Clone, Debug)]
pub struct AwsConfig {
    pub(crate) sdk_config: SdkConfig,
}

impl AwsConfig {
    /// Reads credentials, endpoints and trusted certificates from the environment and the profile,
    /// as every AWS tool does.
    ///
    /// # Errors
    ///
    /// The file of `AWS_CA_BUNDLE` is not usable.
    pub async fn from_environment() -> Result<Self, CaBundleError> {
        let bundle = std::env::var_os("AWS_CA_BUNDLE").filter(|path| !path.is_empty());
        let http = http_client(trust_store(bundle.map(PathBuf::from).as_deref())?);
        let load = move || {
            // Skips the instance metadata service, because a request takes several seconds if the
            // service is not reachable. The ARN and the domain contain the regions that are used.
            let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
                .or_else(ProfileFileRegionProvider::new())
                .or_else(Region::from_static(PLACEHOLDER_REGION));
            defaults_with(http.clone()).region(region)
        };
        let credentials = ReloadingCredentials::new(load.clone());
        Ok(Self { sdk_config: load().credentials_provider(credentials).load().await })
    }

    /// A configuration for an emulator on this machine, with fixed credentials and one endpoint.
    #[cfg(feature = "local")]
    pub async fn local(dynamodb_endpoint: &str) -> Self {
        Self::fixed(dynamodb_endpoint, Credentials::new("local", "local", None, None, "local"))
            .await
    }

    /// A configuration with fixed credentials and one endpoint, which the environment cannot
    /// change.
    #[cfg(feature = "local")]
    pub async fn fixed(endpoint: &str, credentials: Credentials) -> Self {
        let sdk_config = defaults()
            .region(Region::from_static(PLACEHOLDER_REGION))
            .endpoint_url(endpoint)
            .credentials_provider(credentials)
            .load()
            .await;
        Self { sdk_config }
    }

    /// The SDK's configuration for the clients of a region, with timeouts and without retries.
    pub fn in_region(&self, region: &str) -> SdkConfig {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        self.sdk_config
            .to_builder()
            .region(Region::new(region.to_owned()))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .timeout_config(timeouts)
            .build()
    }
}
