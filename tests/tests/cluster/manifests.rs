//! Bad manifests: refused at `kubectl apply` with a sentence that says what to write, or told in the
//! conditions with the field's name, and nobody else is held up.

mod refused;
mod told;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use stream_notifier_tests::tools::built;

use crate::fixture::{cluster, repository};

#[test]
fn the_committed_definition_is_the_operators() -> Result<()> {
    let output = Command::new(built("stream-notifier")?).arg("crd").output()?;
    ensure!(output.status.success(), "{output:?}");
    let committed = std::fs::read_to_string(repository()?.join("crds/streamnotifiers.yaml"))?;
    ensure!(
        committed == String::from_utf8(output.stdout)?,
        "crds/streamnotifiers.yaml is not what `stream-notifier crd` prints: \
         run `make generate` and commit what it changes"
    );
    Ok(())
}

#[tokio::test]
async fn kubectl_explains_every_field() -> Result<()> {
    let kubectl = cluster().await?.kubectl();
    let explain = ["explain", "streamnotifier.spec", "--recursive=false"];
    let explained = stream_notifier_tests::wait::eventually(
        crate::fixture::LIMIT,
        "the API server to publish the definition",
        async || kubectl.run(&explain).await,
    )
    .await?;
    // Wherever kubectl wraps it.
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    for says in [
        "streamArn <string>",
        "tableArn <string>",
        "enum: Continue, Stop",
        "LatestStreamArn",
        "Default: `[Modify]`",
        "enum: Latest, TrimHorizon, AtTimestamp",
    ] {
        ensure!(explained.contains(says), "{says:?} is not in:\n{explained}");
    }
    let definition = kubectl.get(&["crd", "streamnotifiers.streamnotifier.dev"]).await?;
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let undescribed = undescribed("spec", spec);
    ensure!(undescribed.is_empty(), "no description: {undescribed:?}");
    let conditions = definition["status"]["conditions"].as_array().context("no conditions")?;
    let complaint = conditions.iter().find(|condition| condition["type"] == "NonStructuralSchema");
    ensure!(complaint.is_none(), "{complaint:?}");
    Ok(())
}

/// Every field below a schema that says nothing about itself.
fn undescribed(path: &str, schema: &serde_json::Value) -> Vec<String> {
    let mut found = Vec::new();
    if schema["description"].as_str().is_none_or(str::is_empty) {
        found.push(path.to_owned());
    }
    let items = &schema["items"];
    let properties = schema["properties"].as_object();
    let below = properties.or_else(|| items["properties"].as_object());
    for (name, field) in below.into_iter().flatten() {
        found.extend(undescribed(&format!("{path}.{name}"), field));
    }
    found
}
