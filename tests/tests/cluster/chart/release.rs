//! A release from its installation to its end, with a simulated kubelet for its Pod.

use anyhow::{Context, Result, ensure};
use axum::http::StatusCode;
use serde_json::{Value, json};
use stream_notifier_tests::chart::chart_path;
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::helm::Helm;
use stream_notifier_tests::http;
use stream_notifier_tests::namespace::Namespace;
use stream_notifier_tests::wait::eventually;

use super::kubelet::Kubelet;
use super::permissions::{PERMISSIONS, service_account_user, wait_permissions};
use super::{list, text};
use crate::fixture::{WAIT_TIMEOUT, repository_root};

#[tokio::test]
async fn installs_upgrades_and_uninstalls_a_release() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let namespace = control_plane.namespace().await?;
    // The CustomResourceDefinition exists already, as in a cluster where a user applied it.
    let crd = std::fs::read_to_string(repository_root()?.join("crds/streamnotifiers.yaml"))?;
    let kubectl = control_plane.kubectl();
    // Another test may apply it at the same time.
    eventually(WAIT_TIMEOUT, "the CustomResourceDefinition", async || kubectl.apply(&crd).await)
        .await?;

    let release = format!("{}-release", namespace.name());
    let release = Release { helm: &helm, namespace: &namespace, name: &release };
    let kubelet = Kubelet::start(control_plane, &namespace).await?;

    let ((), operator) =
        tokio::try_join!(release.helm("install", &[]), kubelet.run_pod(release.name))?;
    let user = service_account_user(namespace.name(), &operator.account);
    wait_permissions(control_plane, &user, namespace.name(), &PERMISSIONS).await?;
    wait_permissions(control_plane, &user, "default", &[]).await?;

    // The operator writes the status of an invalid StreamNotifier, and its Pod stays ready.
    namespace.apply(&notifier().to_string()).await?;
    wait_ready_reason(&namespace, |reason| reason == "Invalid").await?;
    operator.wait_probes().await?;

    let allow = ["--set=allowedWebSocketDomains={ws.example.com}"];
    let ((), operator) = tokio::try_join!(release.helm("upgrade", &allow), async {
        kubelet.end_pod(operator).await?;
        kubelet.run_pod(release.name).await
    })?;
    // The domain is allowed now, but AWS is missing.
    wait_ready_reason(&namespace, |reason| reason != "Invalid").await?;
    eventually(WAIT_TIMEOUT, "/readyz to report the problem", async || {
        let response = http::get(&format!("{}/readyz", operator.url)).await?;
        let body = response.text();
        ensure!(response.status == StatusCode::SERVICE_UNAVAILABLE, "{body}");
        ensure!(body.starts_with(&format!("{}/chart: ", namespace.name())), "{body}");
        Ok(())
    })
    .await?;
    operator.wait_probes().await?;

    let uninstall = ["uninstall", release.name, "--namespace", namespace.name()];
    tokio::try_join!(helm.run(&uninstall), kubelet.end_pod(operator))?;
    kubectl
        .get(&["crd", "streamnotifiers.streamnotifier.dev"])
        .await
        .context("the CustomResourceDefinition must stay")?;
    namespace.get(&["streamnotifier", "chart"]).await?;
    wait_permissions(control_plane, &user, namespace.name(), &[]).await?;
    kubelet.delete_node().await?;
    namespace.passed();
    Ok(())
}

struct Release<'a> {
    helm: &'a Helm,
    namespace: &'a Namespace,
    name: &'a str,
}

impl Release<'_> {
    /// Runs `helm install` or `helm upgrade` and waits with `--wait`.
    async fn helm(&self, command: &str, more: &[&str]) -> Result<()> {
        // Invalid credentials and an endpoint without a server.
        let set = format!(
            "--set=namespaces={{{}}},aws.region=eu-west-1,aws.endpointUrl=http://127.0.0.1:1",
            self.namespace.name()
        );
        let environment = json!([
            {"name": "AWS_ACCESS_KEY_ID", "value": "test"},
            {"name": "AWS_SECRET_ACCESS_KEY", "value": "test"},
        ]);
        let environment = format!("--set-json=extraEnv={environment}");
        let chart = chart_path();
        let timeout = format!("--timeout={}s", WAIT_TIMEOUT.as_secs());
        let arguments = [command, self.name, &chart, "--namespace", self.namespace.name()];
        let options = ["--take-ownership", "--wait", &timeout, &set, &environment];
        let arguments = [&arguments[..], &options, more].concat();
        self.helm.run(&arguments).await.map(drop)
    }
}

/// A notifier whose domain must be allowed, and whose stream does not exist.
fn notifier() -> Value {
    json!({
        "apiVersion": "streamnotifier.dev/v1alpha1",
        "kind": "StreamNotifier",
        "metadata": {"name": "chart"},
        "spec": {
            "streamArn": "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2024-12-03T08:06:15.779",
            "connections": {"tableName": "connections", "partitionKey": "sk", "value": "keys.SK"},
            "webSocket": {"domain": "ws.example.com"},
        },
    })
}

/// Waits until the reason of `Ready` meets a condition.
async fn wait_ready_reason(
    namespace: &Namespace,
    is_expected: impl Fn(&str) -> bool,
) -> Result<()> {
    eventually(WAIT_TIMEOUT, "the reason of Ready", async || {
        let notifier = namespace.get(&["streamnotifier", "chart"]).await?;
        let conditions = list(&notifier["status"]["conditions"])?;
        let ready = conditions.iter().find(|condition| condition["type"] == "Ready");
        let reason = text(&ready.context("no condition Ready")?["reason"])?;
        ensure!(is_expected(&reason), "{conditions:?}");
        Ok(())
    })
    .await
}
