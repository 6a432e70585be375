//! Every combination of values, checked by the API server.

use std::fs;

use anyhow::{Context, Result, ensure};
use stream_notifier_tests::chart::{chart_path, repository_file};
use stream_notifier_tests::control_plane::ControlPlane;

/// The namespaces that the combinations name, besides that of their releases.
const NAMESPACES: [&str; 4] = ["orders", "payments", "456", "789"];

#[tokio::test]
async fn accepts_the_objects_of_every_combination_of_values() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let kubectl = control_plane.kubectl();
    for name in NAMESPACES {
        kubectl.run(&["create", "namespace", name]).await?;
    }
    kubectl
        .apply(
            "{apiVersion: v1, kind: Namespace, metadata: {name: operators, \
              labels: {pod-security.kubernetes.io/warn: restricted}}}",
        )
        .await?;
    let (chart, mut manifests) = (chart_path(), String::new());
    for entry in fs::read_dir(repository_file("charts/stream-notifier/ci"))? {
        let path = entry?.path();
        let name = path.file_stem().context("a name")?.to_string_lossy().into_owned();
        let (name, path) = (name.replace("-values", ""), path.display().to_string());
        // Other tests apply the CustomResourceDefinition.
        let flags = ["--namespace=operators", "--values", &path, "--set=crds.enabled=false"];
        let template = [&["template", &name, &chart], &flags[..]].concat();
        manifests.push_str(&helm.run(&template).await?);
    }
    let apply = ["apply", "--server-side", "--dry-run=server", "-f", "-"];
    let output = kubectl.output(&apply, &manifests).await?;
    let problems = String::from_utf8_lossy(&output.stderr).into_owned();
    let problems: Vec<_> = problems.lines().collect();
    // That of the combination without security contexts.
    let is_expected = matches!(&problems[..], [one] if one.contains("would violate PodSecurity"));
    ensure!(output.status.success() && is_expected, "{problems:#?}");
    Ok(())
}
