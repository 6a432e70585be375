//! The Helm chart: its rendered objects, and the files that are generated from it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::helm::Helm;

/// The first lines of the table of values in the chart's README.
const TABLE_HEAD: &str = "| Value | Default | Meaning |\n|---|---|---|\n";

const INSTALL_HEAD: &str = "\
# Generated from charts/stream-notifier with its default values by `make generate`; do not edit.
# charts/stream-notifier/README.md describes how to use it, under \"Install without Helm\".
apiVersion: v1
kind: Namespace
metadata:
  name: stream-notifier
";

/// The path of a file of the repository.
pub fn repository_file(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The path of the chart, as an argument of Helm.
pub fn chart_path() -> String {
    repository_file("charts/stream-notifier").display().to_string()
}

/// Reads a file of the chart.
pub fn read_chart_file(name: &str) -> Result<String> {
    let path = repository_file("charts/stream-notifier").join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}

/// The objects of a YAML text with several documents.
pub fn parse_objects(manifests: &str) -> Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifests)?;
    Ok(documents.into_iter().filter(|document| !document.is_null()).collect())
}

/// The only object of a kind.
pub fn find_object<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let object = found.next().with_context(|| format!("there must be a {kind}"))?;
    ensure!(found.next().is_none(), "there must be only one {kind}");
    Ok(object)
}

/// A value of the chart.
pub struct ChartValue {
    /// `parent.child`
    pub path: String,
    pub default: Value,
    pub description: String,
}

/// All values of the chart, in alphabetical order. A value is a leaf of the schema's properties.
pub fn chart_values() -> Result<Vec<ChartValue>> {
    let schema: Value = serde_json::from_str(&read_chart_file("values.schema.json")?)?;
    let defaults: Value = serde_saphyr::from_str(&read_chart_file("values.yaml")?)?;
    let mut values = Vec::new();
    collect_values(&schema, &defaults, "", &mut values)?;
    Ok(values)
}

fn collect_values(
    schema: &Value,
    default: &Value,
    path: &str,
    values: &mut Vec<ChartValue>,
) -> Result<()> {
    let Some(properties) = schema["properties"].as_object() else {
        let description = schema["description"].as_str();
        let description = description.with_context(|| format!("{path} has no description"))?;
        values.push(ChartValue {
            path: path.to_owned(),
            default: default.clone(),
            description: description.to_owned(),
        });
        return Ok(());
    };
    let defaults = default.as_object().with_context(|| format!("{path} must be an object"))?;
    for key in defaults.keys() {
        ensure!(properties.contains_key(key), "the schema lacks {path}.{key}");
    }
    // A parent chart also puts the values of other charts there.
    let is_closed = schema["additionalProperties"] == false;
    ensure!(is_closed || path == "global", "the schema must reject unknown values in {path}");
    for (key, schema) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        let default = defaults.get(key).with_context(|| format!("values.yaml lacks {path}"))?;
        collect_values(schema, default, &path, values)?;
    }
    Ok(())
}

/// The chart's README with the table of all values.
pub fn chart_readme() -> Result<String> {
    let mut table = TABLE_HEAD.to_owned();
    for ChartValue { path, default, description } in chart_values()? {
        table.push_str(&format!("| `{path}` | `{default}` | {description} |\n"));
    }
    let readme = read_chart_file("README.md")?;
    let (before, rest) =
        readme.split_once(TABLE_HEAD).context("README.md has no table of values")?;
    let rows = rest.lines().take_while(|line| line.starts_with('|'));
    let old: usize = rows.map(|row| row.len() + 1).sum();
    Ok(format!("{before}{table}{}", &rest[old..]))
}

/// The content of `deploy/install.yaml`.
pub async fn install_manifest(helm: &Helm) -> Result<String> {
    let template = ["template", "stream-notifier", &chart_path(), "--namespace", "stream-notifier"];
    Ok(format!("{INSTALL_HEAD}{}", helm.run(&template).await?))
}
