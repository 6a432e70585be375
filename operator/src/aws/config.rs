//! The only folder that knows the AWS SDK: streams, connections and the WebSocket API behind the
//! stages' traits.

use std::time::Duration;

use aws_config::environment::region::EnvironmentVariableRegionProvider;
use aws_config::meta::region::RegionProviderChain;
use aws_config::profile::ProfileFileRegionProvider;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, ConfigLoader, Region, SdkConfig};
#[cfg(feature = "local")]
use aws_credential_types::Credentials;
use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::Provider;
use aws_smithy_http_client::tls::rustls_provider::CryptoMode;
use aws_smithy_http_client::{Builder, Connector};

/// Every client is given its own region; this one only keeps the SDK from looking for another.
const PLACEHOLDER_REGION: &str = "us-east-1";

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// The SDK's own ways, proxy variables among them, and one pool of connections for all clients.
pub(crate) fn defaults() -> ConfigLoader {
    let http = Builder::new().build_with_connector_fn(|settings, components| {
        let mut connector = Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc));
        connector.set_connector_settings(settings.cloned());
        connector.set_sleep_impl(components.and_then(|components| components.sleep_impl()));
        connector.set_proxy_config(Some(ProxyConfig::from_env()));
        connector.build()
    });
    aws_config::defaults(BehaviorVersion::latest()).http_client(http)
}

/// The process's AWS configuration: credentials, and endpoints for emulators, from the environment
/// as every AWS tool reads it.
#[derive(Clone, Debug)]
pub struct AwsConfig {
    pub(crate) config: SdkConfig,
}

impl AwsConfig {
    /// Reads the environment.
    pub async fn from_environment() -> Self {
        // Not from the instance's metadata: stream and domain tell their regions, and where it cannot
        // be reached, asking it takes seconds.
        let region = RegionProviderChain::first_try(EnvironmentVariableRegionProvider::new())
            .or_else(ProfileFileRegionProvider::new())
            .or_else(Region::from_static(PLACEHOLDER_REGION));
        Self { config: defaults().region(region).load().await }
    }

    /// A configuration for an emulator on this machine: fixed credentials, one endpoint.
    #[cfg(feature = "local")]
    pub async fn local(dynamodb_endpoint: &str) -> Self {
        Self::fixed(dynamodb_endpoint, Credentials::new("local", "local", None, None, "local"))
            .await
    }

    /// A configuration with one endpoint and fixed credentials. The environment sets neither.
    #[cfg(feature = "local")]
    pub async fn fixed(endpoint: &str, credentials: Credentials) -> Self {
        let config = defaults()
            .region(Region::from_static(PLACEHOLDER_REGION))
            .endpoint_url(endpoint)
            .credentials_provider(credentials)
            .load()
            .await;
        Self { config }
    }

    /// The configuration for a region, without the SDK's own retries: every try passes our limits.
    pub fn region(&self, region: &str) -> SdkConfig {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .operation_attempt_timeout(ATTEMPT_TIMEOUT)
            .build();
        self.config
            .to_builder()
            .region(Region::new(region.to_owned()))
            .retry_config(aws_config::retry::RetryConfig::disabled())
            .timeout_config(timeouts)
            .build()
    }
}
