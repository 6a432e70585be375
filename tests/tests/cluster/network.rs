//! The operator behind a proxy, and behind a TLS server with a certificate authority of its own.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::connect_proxy::ConnectProxy;
use stream_notifier_tests::port::free_port;
use stream_notifier_tests::scratch::Scratch;
use stream_notifier_tests::tls_server::TlsServer;

use crate::fixture::{TestEnv, WAIT_TIMEOUT, cluster};

const NAME: &str = "network";
const PK: &str = "target_pk#fuga";
const SK: &str = "target_sk#hoge";

/// The address of a URL.
fn address(url: &str) -> Result<SocketAddr> {
    let (_, address) = url.split_once("://").context("no scheme")?;
    address.parse().context("no address")
}

/// Starts an operator with these variables and a kubeconfig. Waits until it reconciles a notifier.
async fn reconcile(
    env: &TestEnv,
    name: &str,
    kubeconfig: &Value,
    variables: &[(&str, &str)],
) -> Result<()> {
    let scratch = Scratch::new("kubeconfig")?;
    let file = scratch.write("kubeconfig", &kubeconfig.to_string())?;
    let kubeconfig = ("KUBECONFIG", file.to_str().context("a path in UTF-8")?);
    let variables = [&[kubeconfig], variables].concat();
    let operator = env.start_operator_with(env.proxy.endpoint(), &variables)?;
    env.apply_and_wait_ready(&env.manifest(name)).await?;
    operator.stop().await?;
    env.namespace.run(&["delete", "streamnotifier", name]).await.map(drop)
}

#[tokio::test]
async fn reaches_the_api_server_directly_or_through_a_proxy() -> Result<()> {
    let env = TestEnv::new().await?;
    let proxy = ConnectProxy::start(address(cluster().await?.url())?).await?;
    let direct = env.kubeconfig()?;
    // Only the proxy knows this host.
    let host = "kubernetes.example:6443";
    let mut remote = direct.clone();
    remote["clusters"][0]["cluster"]["server"] = json!(format!("https://{host}"));
    remote["clusters"][0]["cluster"]["tls-server-name"] = json!("localhost");

    let unused = format!("http://127.0.0.1:{}", free_port()?);
    let excluded = [("HTTPS_PROXY", &*unused), ("NO_PROXY", "127.0.0.1,localhost")];
    reconcile(&env, "direct", &direct, &excluded).await?;
    ensure!(proxy.targets().is_empty(), "{:?}", proxy.targets());

    // The proxy's own address does not have to be used through the proxy.
    let excluded = [("HTTPS_PROXY", proxy.url()), ("NO_PROXY", "127.0.0.1")];
    reconcile(&env, "environment", &remote, &excluded).await?;
    let count = proxy.targets().len();
    ensure!(count > 0 && proxy.targets().iter().all(|target| target == host), "{count}");

    remote["clusters"][0]["cluster"]["proxy-url"] = json!(proxy.url());
    reconcile(&env, "proxy-url", &remote, &[("HTTPS_PROXY", &*unused), ("NO_PROXY", "*")]).await?;
    ensure!(proxy.targets().len() > count);
    env.passed();
    Ok(())
}

#[tokio::test]
async fn authenticates_with_an_exec_plugin() -> Result<()> {
    let env = TestEnv::new().await?;
    let mut kubeconfig = env.kubeconfig()?;
    let credential = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": kubeconfig["users"][0]["user"]["token"]},
    });
    kubeconfig["users"][0]["user"] = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "echo",
        "args": [credential.to_string()],
        "interactiveMode": "Never",
    }});
    reconcile(&env, NAME, &kubeconfig, &[]).await?;
    env.passed();
    Ok(())
}

#[tokio::test]
async fn trusts_the_certificates_of_the_system_and_of_the_bundle() -> Result<()> {
    let env = TestEnv::new().await?;
    env.insert_item(PK, SK, 0).await?;
    let client = env.api.connect("SK=hoge").await?;
    let emulator = address(env.proxy.endpoint())?;
    let server = TlsServer::start(emulator).await?;
    let other = TlsServer::start(emulator).await?;
    let path = |server: &TlsServer| {
        server.authority().to_str().map(str::to_owned).context("a path in UTF-8")
    };
    let (trusted, other) = (path(&server)?, path(&other)?);

    // SSL_CERT_FILE replaces the certificates of the system.
    let operator = env.start_operator_with(server.url(), &[("SSL_CERT_FILE", &other)])?;
    env.apply_spec(&env.manifest(NAME)).await?;
    let message = env.wait_stalled(NAME, "UntrustedCertificate").await?;
    ensure!(message.contains("set AWS_CA_BUNDLE"), "{message}");
    operator.stop().await?;

    let bundle = [("SSL_CERT_FILE", &*other), ("AWS_CA_BUNDLE", &*trusted)];
    let system: [(&str, &str); 1] = [("SSL_CERT_FILE", &trusted)];
    for (count, variables) in [(1, &bundle[..]), (2, &system[..])] {
        let operator = env.start_operator_with(server.url(), variables)?;
        // The first claim of the checkpoint decides where reading begins.
        env.wait_ready(NAME).await?;
        env.update_item(PK, SK, count).await?;
        let received = client
            .wait_until(WAIT_TIMEOUT, "the change", |all| all.len() >= count as usize)
            .await?;
        let last = received.last().context("no message")?.json()?;
        ensure!(last == json!({"pk": "fuga", "sk": "hoge", "value": format!("{count}")}), "{last}");
        operator.stop().await?;
    }
    env.passed();
    Ok(())
}
