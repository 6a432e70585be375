//! The Helm chart on a cluster: objects that the API server accepts, the permissions that they grant, the
//! life of a release, and installations without the chart.

mod combinations;
mod dependency;
mod kubelet;
mod kustomize;
mod permissions;
mod release;

use anyhow::{Context, Result, bail};
use serde_json::Value;

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
