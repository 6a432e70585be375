//! Installations without Helm.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stream_notifier_tests::chart::{find_object, parse_objects, read_chart_file, repository_file};
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::scratch::Scratch;

#[tokio::test]
async fn applies_the_committed_manifests() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let kubectl = control_plane.kubectl();
    for folder in ["crds", "deploy"] {
        let path = repository_file(folder).display().to_string();
        kubectl.run(&["apply", "--kustomize", &path]).await?;
    }
    let deployment =
        kubectl.get(&["deployment", "stream-notifier", "--namespace", "stream-notifier"]).await?;
    let image = &deployment["spec"]["template"]["spec"]["containers"][0]["image"];
    ensure!(*image == "stream-notifier:0.1.0", "{image}");
    kubectl.run(&["delete", "namespace", "stream-notifier", "--wait=false"]).await.map(drop)
}

#[tokio::test]
async fn builds_the_overlay_of_the_readme() -> Result<()> {
    let readme = read_chart_file("README.md")?;
    let (_, overlay) = readme.split_once("```yaml\napiVersion: kustomize").context("an overlay")?;
    let (overlay, _) = overlay.split_once("```").context("the end of the overlay")?;
    let scratch = Scratch::new("overlay")?;
    scratch.write("kustomization.yaml", &format!("apiVersion: kustomize{overlay}"))?;
    let base = scratch.path().join("deploy");
    fs::create_dir(&base)?;
    for file in ["install.yaml", "kustomization.yaml"] {
        fs::copy(repository_file("deploy").join(file), base.join(file))?;
    }
    let kubectl = ControlPlane::shared().await?.kubectl();
    let path = scratch.path().display().to_string();
    let objects = parse_objects(&kubectl.run(&["kustomize", &path]).await?)?;
    let deployment = find_object(&objects, "Deployment")?;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["image"] == "registry.example.com/stream-notifier:0.1.0", "{container}");
    let arguments = container["args"].as_array().context("args")?;
    let last = arguments.last().and_then(Value::as_str);
    ensure!(last == Some("--operator-identity-namespaces=dev"), "{arguments:?}");
    let account = find_object(&objects, "ServiceAccount")?;
    let role = &account["metadata"]["annotations"]["eks.amazonaws.com/role-arn"];
    ensure!(role.as_str().is_some_and(|role| role.ends_with("role/stream-notifier")), "{account}");
    Ok(())
}
