//! Invalid manifests: `kubectl apply` rejects them with a message that says what to write, or a condition
//! names the field. Other notifiers continue.

mod invalid;
mod rejected;

use std::process::Command;

use anyhow::{Context, Result, ensure};
use stream_notifier_tests::tools::built;
use stream_notifier_tests::wait::eventually;

use crate::fixture::{WAIT_TIMEOUT, cluster, repository_root};

#[test]
fn commits_the_definition_that_the_operator_prints() -> Result<()> {
    let output = Command::new(built("stream-notifier")?).arg("crd").output()?;
    ensure!(output.status.success(), "{output:?}");
    let committed = std::fs::read_to_string(repository_root()?.join("crds/streamnotifiers.yaml"))?;
    ensure!(
        committed == String::from_utf8(output.stdout)?,
        "crds/streamnotifiers.yaml is not what `stream-notifier crd` prints: \
         run `make generate` and commit what it changes"
    );
    Ok(())
}

#[tokio::test]
async fn describes_every_field_for_kubectl_explain() -> Result<()> {
    let kubectl = cluster().await?.kubectl();
    let explain = ["explain", "streamnotifier.spec", "--recursive=false"];
    let explained =
        eventually(WAIT_TIMEOUT, "the API server to publish the definition", async || {
            kubectl.run(&explain).await
        })
        .await?;
    // kubectl may wrap lines anywhere.
    let explained = explained.split_whitespace().collect::<Vec<_>>().join(" ");
    for part in [
        "streamArn <string>",
        "tableArn <string>",
        "enum: Continue, Stop",
        "LatestStreamArn",
        "Default: `[Modify]`",
        "enum: Latest, TrimHorizon, AtTimestamp",
    ] {
        ensure!(explained.contains(part), "{part:?} is not in:\n{explained}");
    }
    let definition = kubectl.get(&["crd", "streamnotifiers.streamnotifier.dev"]).await?;
    let spec =
        &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let undescribed = undescribed("spec", spec);
    ensure!(undescribed.is_empty(), "no description: {undescribed:?}");
    let conditions = definition["status"]["conditions"].as_array().context("no conditions")?;
    let violation = conditions.iter().find(|condition| condition["type"] == "NonStructuralSchema");
    ensure!(violation.is_none(), "{violation:?}");
    Ok(())
}

/// The fields of a schema without a description.
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
