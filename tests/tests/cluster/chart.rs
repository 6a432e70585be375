//! The Helm chart: its rendered objects, the permissions that it grants, and the life of a release.

mod kubelet;
mod permissions;
mod release;
mod rendering;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::fixture::repository_root;

fn name(object: &Value) -> Result<&str> {
    object["metadata"]["name"].as_str().context("the object must have a name")
}

fn text(value: &Value) -> Result<String> {
    value
        .as_str()
        .map(str::to_owned)
        .with_context(|| format!("the value must be a string: {value}"))
}

/// The items of a list. A missing list is empty.
fn list(value: &Value) -> Result<Vec<Value>> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Array(items) => Ok(items.clone()),
        other => bail!("the value must be a list: {other}"),
    }
}

/// The path of the chart.
fn chart_path() -> Result<String> {
    Ok(repository_root()?.join("charts/stream-notifier").display().to_string())
}
