//! Combinations of values: the files in the chart's `ci` folder.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::Value;
use stream_notifier_tests::chart::{chart_values, parse_objects, repository_file};
use stream_notifier_tests::tools::{built, tool};

use super::{Chart, container};

/// The supported versions of Kubernetes whose schemas the objects must match.
const KUBERNETES: [&str; 4] = ["1.33", "1.34", "1.35", "1.36"];

/// Renders that run at the same time.
const PARALLEL: usize = 4;

/// A file with values, and what the chart renders with them.
struct Combination {
    name: String,
    objects: Vec<Value>,
}

/// The files, with the name of each combination.
fn files() -> Result<Vec<(String, PathBuf)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(repository_file("charts/stream-notifier/ci"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let name = name.strip_suffix("-values.yaml").context("NAME-values.yaml")?.to_owned();
        files.push((name, path));
    }
    ensure!(files.len() >= 25, "only {} combinations", files.len());
    files.sort();
    Ok(files)
}

/// Renders all combinations `times` times, which must not make a difference.
async fn combinations(chart: &Chart, times: usize) -> Result<Vec<Combination>> {
    let render = async |(name, path): (String, PathBuf)| {
        let path = path.display().to_string();
        let flags = ["--namespace", "operators", "--values", &path];
        let rendered = chart.template("release", &flags).await?;
        for _ in 1..times {
            let again = chart.template("release", &flags).await?;
            ensure!(again == rendered, "{name} must render the same each time");
        }
        let objects = parse_objects(&rendered).with_context(|| name.clone())?;
        Ok(Combination { name, objects })
    };
    stream::iter(files()?).map(render).buffer_unordered(PARALLEL).try_collect().await
}

#[tokio::test]
async fn render_objects_that_every_supported_kubernetes_accepts() -> Result<()> {
    let chart = Chart::new().await?;
    let mut paths = Vec::new();
    let mut checked = BTreeSet::new();
    for Combination { name, objects } in combinations(&chart, 2).await? {
        let mut names = BTreeSet::new();
        let mut documents = String::new();
        for object in &objects {
            let metadata = &object["metadata"];
            let id = format!("{} {} {}", object["kind"], metadata["namespace"], metadata["name"]);
            ensure!(names.insert(id.clone()), "{name} has {id} twice");
            // Most combinations share most objects.
            let document = format!("---\n{object}\n");
            if checked.insert(document.clone()) {
                documents.push_str(&document);
            }
        }
        paths.push(chart.scratch.write(&format!("{name}.yaml"), &documents)?);
    }
    let mut command = Command::new(tool("kubernetes-validate").await?);
    command.args(["-m", "kubernetes_validate", "--strict"]);
    for version in KUBERNETES {
        command.args(["--kubernetes-version", version]);
    }
    let output = command.args(&paths).output()?;
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    let problems: Vec<_> = report.lines().filter(|line| !line.starts_with("INFO")).collect();
    ensure!(
        output.status.success() && problems.is_empty(),
        "{problems:#?}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for version in KUBERNETES {
        let checked = format!(
            "passed for resource deployment/release-stream-notifier against version {version}"
        );
        ensure!(report.contains(&checked), "{version} was not checked:\n{report}");
    }
    Ok(())
}

#[tokio::test]
async fn pass_only_arguments_that_the_operator_knows() -> Result<()> {
    let help = Command::new(built("stream-notifier")?).args(["run", "--help"]).output()?;
    let help = String::from_utf8(help.stdout)?;
    let known: BTreeSet<&str> = help
        .split(|c: char| c.is_whitespace() || c == '=')
        .filter(|w| w.starts_with("--"))
        .collect();
    let mut passed = BTreeSet::new();
    for Combination { name, objects } in combinations(&Chart::new().await?, 1).await? {
        for deployment in objects.iter().filter(|object| object["kind"] == "Deployment") {
            let arguments = container(deployment)["args"].as_array().context("args")?;
            let arguments: Vec<&str> = arguments.iter().filter_map(Value::as_str).collect();
            ensure!(arguments.first() == Some(&"run"), "{name}: {arguments:?}");
            for argument in &arguments[1..] {
                let flag = argument.split('=').next().unwrap_or_default();
                ensure!(known.contains(flag), "{name}: `run --help` does not list {flag}");
                passed.insert(flag.to_owned());
            }
        }
    }
    ensure!(passed.len() > 7, "the combinations set only {passed:?}");
    Ok(())
}

#[test]
fn set_every_value() -> Result<()> {
    let mut unset: BTreeSet<String> = chart_values()?.into_iter().map(|value| value.path).collect();
    for (_, path) in files()? {
        let values: Value = serde_saphyr::from_str(&fs::read_to_string(path)?)?;
        unset.retain(|path| values.pointer(&format!("/{}", path.replace('.', "/"))).is_none());
    }
    ensure!(unset.is_empty(), "no combination sets {unset:?}");
    Ok(())
}
