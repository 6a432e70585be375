//! Files that are generated from the chart or copied into it.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use stream_notifier_tests::chart::{
    chart_readme, find_object, install_manifest, parse_objects, read_chart_file, repository_file,
};

use super::Chart;

/// This file is also the snapshot of the chart's objects with the default values.
#[tokio::test]
async fn commits_the_default_objects_as_one_file() -> Result<()> {
    let chart = Chart::new().await?;
    let committed = fs::read_to_string(repository_file("deploy/install.yaml"))?;
    let rendered = install_manifest(&chart.helm).await?;
    let difference = committed.lines().zip(rendered.lines()).find(|(old, new)| old != new);
    ensure!(
        committed == rendered,
        "deploy/install.yaml differs from the chart: run `make generate` and check what it changes; \
         the first difference is {difference:?}"
    );
    Ok(())
}

#[test]
fn lists_every_value_in_the_readme() -> Result<()> {
    ensure!(
        read_chart_file("README.md")? == chart_readme()?,
        "the table of charts/stream-notifier/README.md differs from values.yaml and \
         values.schema.json: run `make generate`"
    );
    Ok(())
}

#[tokio::test]
async fn contains_the_generated_crd() -> Result<()> {
    let crd = fs::read_to_string(repository_file("crds/streamnotifiers.yaml"))?;
    ensure!(
        read_chart_file("files/streamnotifiers.yaml")? == crd,
        "charts/stream-notifier/files/streamnotifiers.yaml is not crds/streamnotifiers.yaml: \
         run `make generate`"
    );

    let chart = Chart::new().await?;
    let generated = parse_objects(&crd)?.remove(0);
    let rendered = chart.render(&[]).await?;
    let rendered = find_object(&rendered, "CustomResourceDefinition")?;
    ensure!(
        rendered["spec"] == generated["spec"]
            && rendered["metadata"]["name"] == generated["metadata"]["name"],
        "the chart must not change the CustomResourceDefinition"
    );
    let policy = "/metadata/annotations/helm.sh~1resource-policy";
    ensure!(rendered.pointer(policy).is_some_and(|policy| policy == "keep"));

    let other =
        chart.template("other", &["--set=fullnameOverride=name,nameOverride=chart"]).await?;
    let other = parse_objects(&other)?;
    ensure!(
        find_object(&other, "CustomResourceDefinition")? == rendered,
        "the CustomResourceDefinition must be the same in every release"
    );

    let rendered = chart.render(&["--set=crds.keep=false"]).await?;
    ensure!(find_object(&rendered, "CustomResourceDefinition")?.pointer(policy).is_none());
    let rendered = chart.render(&["--set=crds.enabled=false"]).await?;
    ensure!(find_object(&rendered, "CustomResourceDefinition").is_err());
    Ok(())
}

#[test]
fn describes_the_chart_for_artifact_hub() -> Result<()> {
    let chart: Value = serde_saphyr::from_str(&read_chart_file("Chart.yaml")?)?;
    let annotation = |name: &str| {
        let text = chart["annotations"][format!("artifacthub.io/{name}")].as_str();
        text.with_context(|| format!("Chart.yaml has no annotation {name}"))
    };
    let list =
        |name: &str| -> Result<Vec<Value>> { Ok(serde_saphyr::from_str(annotation(name)?)?) };
    let crd = fs::read_to_string(repository_file("crds/streamnotifiers.yaml"))?;
    let crd = parse_objects(&crd)?.remove(0);
    let [listed] = &list("crds")?[..] else { bail!("there is one kind") };
    ensure!(listed["name"] == crd["metadata"]["name"], "{listed}");
    ensure!(listed["kind"] == crd["spec"]["names"]["kind"], "{listed}");
    let versions = crd["spec"]["versions"].as_array().context("versions")?;
    let versions: BTreeSet<_> = versions.iter().map(|version| version["name"].as_str()).collect();
    ensure!(versions.contains(&listed["version"].as_str()), "{listed}");

    let example = fs::read_to_string(repository_file("examples/target-attribute.yaml"))?;
    ensure!(
        list("crdsExamples")? == parse_objects(&example)?,
        "the annotation crdsExamples differs from examples/target-attribute.yaml"
    );
    ensure!(annotation("operator")? == "true");
    ensure!(annotation("license")? == "Apache-2.0");
    Ok(())
}
