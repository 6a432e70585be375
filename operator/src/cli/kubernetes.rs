//! Client of the Kubernetes API server: that of the kubeconfig, or else that of the Pod.

use axum::http::uri::InvalidUri;
use kube::config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError, NoProxyError};
use kube::{Client, Config};
use thiserror::Error;

use super::proxy::{parse_proxy, proxy_for};

/// The client cannot be created.
#[derive(Debug, Error)]
pub enum KubernetesError {
    /// There is neither a kubeconfig nor a ServiceAccount.
    #[error(
        "cannot load the kubeconfig ({kubeconfig}), and this is not a Pod ({in_cluster}); check KUBECONFIG"
    )]
    NoConfig { kubeconfig: Box<KubeconfigError>, in_cluster: InClusterError },
    /// kube cannot parse `NO_PROXY`.
    #[error(
        "cannot parse NO_PROXY; list host names, IP addresses and CIDR blocks, separated by commas"
    )]
    NoProxy(#[source] NoProxyError),
    /// The URL is not shown, because it can contain a password.
    #[error(
        "cannot parse the URL of the proxy; write http://HOST:PORT in proxy-url or HTTPS_PROXY"
    )]
    Proxy(#[source] InvalidUri),
    /// The URL is not shown here either.
    #[error(
        "the proxy has the scheme {0:?}, but only http and socks5 are supported; \
         write http://HOST:PORT in proxy-url or HTTPS_PROXY"
    )]
    ProxyScheme(String),
    /// kube neither renews the token with an issuer of a private authority or through a proxy, nor stores
    /// the new one for kubectl.
    #[error(
        "the kubeconfig uses the auth provider oidc, whose token cannot be renewed; \
         use an exec plugin such as kubelogin"
    )]
    OidcProvider,
    /// The kubeconfig is not usable, for example because its exec plugin failed.
    #[error("cannot create the Kubernetes client; check the kubeconfig")]
    Client(#[source] kube::Error),
}

/// Creates the client.
pub async fn kubernetes_client() -> Result<Client, KubernetesError> {
    let mut config = match Kubeconfig::read() {
        Ok(kubeconfig) => from_kubeconfig(kubeconfig).await?,
        Err(error) => in_cluster(error)?,
    };
    config.apply_debug_overrides();
    Client::try_from(config).map_err(KubernetesError::Client)
}

/// Whether this process runs in a Pod. A Pod can lack the files of a ServiceAccount.
pub fn is_in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() || Config::incluster().is_ok()
}

async fn from_kubeconfig(kubeconfig: Kubeconfig) -> Result<Config, KubernetesError> {
    let proxy_url = proxy_url(&kubeconfig);
    let mut config =
        match Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await {
            Ok(config) => config,
            Err(KubeconfigError::ParseNoProxy(error)) => {
                return Err(KubernetesError::NoProxy(error));
            }
            Err(error) => return in_cluster(error),
        };
    if config.auth_info.auth_provider.as_ref().is_some_and(|provider| provider.name == "oidc") {
        return Err(KubernetesError::OidcProvider);
    }
    // As in kubectl, NO_PROXY does not apply to the `proxy-url` of a kubeconfig.
    let variable = |name: &str| std::env::var(name).ok();
    let proxy = proxy_url.or_else(|| proxy_for(&config.cluster_url, variable));
    config.proxy_url =
        proxy.map(|url| parse_proxy(&url)).transpose().map_err(KubernetesError::Proxy)?;
    // kube rejects another scheme with an error that contains the URL.
    let scheme = config.proxy_url.as_ref().and_then(|url| url.scheme_str());
    match scheme {
        None | Some("http" | "socks5") => Ok(config),
        Some(other) => Err(KubernetesError::ProxyScheme(other.to_owned())),
    }
}

/// The `proxy-url` of the current context.
fn proxy_url(kubeconfig: &Kubeconfig) -> Option<String> {
    let Kubeconfig { current_context, contexts, clusters, .. } = kubeconfig;
    let context = contexts.iter().find(|it| Some(&it.name) == current_context.as_ref())?;
    let cluster = &context.context.as_ref()?.cluster;
    let cluster = clusters.iter().find(|it| it.name == *cluster)?.cluster.as_ref()?;
    cluster.proxy_url.clone().filter(|url| !url.is_empty())
}

/// The configuration of a Pod. It uses no proxy, because a Pod reaches the API server directly.
fn in_cluster(kubeconfig: KubeconfigError) -> Result<Config, KubernetesError> {
    Config::incluster().map_err(|in_cluster| KubernetesError::NoConfig {
        kubeconfig: Box::new(kubeconfig),
        in_cluster,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(cluster: &str, user: &str) -> Kubeconfig {
        let text = format!(
            "{{current-context: a, \
              contexts: [{{name: a, context: {{cluster: b, user: c}}}}], \
              clusters: [{{name: other, cluster: {{server: https://other, proxy-url: http://other}}}}, \
                {{name: b, cluster: {{server: 'https://api.example.com', {cluster}}}}}], \
              users: [{{name: c, user: {{{user}}}}}]}}"
        );
        Kubeconfig::from_yaml(&text).unwrap()
    }

    #[tokio::test]
    async fn uses_the_proxy_url_of_the_current_cluster() {
        let config = from_kubeconfig(kubeconfig("proxy-url: 'proxy:3128'", "")).await.unwrap();
        assert_eq!(config.proxy_url.unwrap().to_string(), "http://proxy:3128/");
        for url in ["http://secret:a b@proxy", "https://user:secret@proxy:443"] {
            let error = from_kubeconfig(kubeconfig(&format!("proxy-url: '{url}'"), "")).await;
            let error = crate::telemetry::error_chain(&error.unwrap_err());
            assert!(error.contains("proxy") && !error.contains("secret"), "{error}");
        }
    }

    #[tokio::test]
    async fn rejects_an_auth_provider_that_cannot_renew_its_token() {
        let oidc = "auth-provider: {name: oidc, config: {id-token: a}}";
        let result = from_kubeconfig(kubeconfig("", oidc)).await;
        assert!(matches!(result, Err(KubernetesError::OidcProvider)), "{result:?}");
    }
}
