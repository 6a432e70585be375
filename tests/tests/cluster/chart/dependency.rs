//! A chart that depends on this one and contains a StreamNotifier.

use std::fs;

use anyhow::{Context, Result, ensure};
use stream_notifier_tests::chart::{chart_path, read_chart_file, repository_file};
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::scratch::Scratch;

/// Writes a chart `orders` into a folder, and returns its path.
fn write_parent_chart(scratch: &Scratch) -> Result<String> {
    let parent = scratch.path().join("orders");
    fs::create_dir_all(parent.join("templates"))?;
    let chart = format!(
        "{{apiVersion: v2, name: orders, version: 0.1.0, dependencies: \
         [{{name: stream-notifier, version: 0.1.0, repository: 'file://{}'}}]}}",
        fs::canonicalize(chart_path())?.display()
    );
    fs::write(parent.join("Chart.yaml"), chart)?;
    let notifier = fs::read_to_string(repository_file("examples/target-attribute.yaml"))?;
    let notifier = notifier.replace("namespace: dev", "namespace: '{{ .Release.Namespace }}'");
    fs::write(parent.join("templates/notifier.yaml"), notifier)?;
    Ok(parent.display().to_string())
}

/// Runs the commands of the chart's README, on a control plane of its own because it begins without the
/// CustomResourceDefinition.
#[tokio::test]
async fn installs_a_chart_that_contains_the_operator_and_a_notifier() -> Result<()> {
    let readme = read_chart_file("README.md")?;
    for command in [
        "kubectl apply -k crds",
        "kubectl wait --for=condition=Established crd/streamnotifiers.streamnotifier.dev",
        "helm install orders ./orders --set stream-notifier.crds.enabled=false",
    ] {
        ensure!(readme.contains(command), "README.md must contain `{command}`");
    }

    let control_plane = ControlPlane::start().await?;
    let (helm, kubectl) = (control_plane.helm().await?, control_plane.kubectl());
    let scratch = Scratch::new("parent-chart")?;
    let parent = write_parent_chart(&scratch)?;
    helm.run(&["dependency", "update", &parent]).await?;
    let install =
        |flag| ["install", "orders", &parent, "--namespace=orders", "--create-namespace", flag];

    // In one step it fails, as the README says.
    let error = helm.run(&install("--set=stream-notifier.crds.enabled=true")).await;
    let error = format!("{:#}", error.err().context("the installation must fail")?);
    ensure!(error.contains("no matches for kind \"StreamNotifier\""), "{error}");

    let crds = repository_file("crds").display().to_string();
    kubectl.run(&["apply", "-k", &crds]).await?;
    let established = "--for=condition=Established";
    kubectl.run(&["wait", established, "crd/streamnotifiers.streamnotifier.dev"]).await?;
    helm.run(&install("--set=stream-notifier.crds.enabled=false")).await?;
    kubectl.get(&["streamnotifier", "target-attribute", "--namespace=orders"]).await?;
    kubectl.get(&["deployment", "orders-stream-notifier", "--namespace=orders"]).await?;
    helm.run(&["uninstall", "orders", "--namespace=orders"]).await.map(drop)
}
