//! The objects that the chart renders, and its values.

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::helm::Helm;
use stream_notifier_tests::kubectl::Kubectl;

use super::{chart_path, list, name};
use crate::fixture::repository_root;

#[tokio::test]
async fn contains_the_generated_crd() -> Result<()> {
    let root = repository_root()?;
    let crd = fs::read_to_string(root.join("crds/streamnotifiers.yaml"))?;
    let copy = fs::read_to_string(root.join("charts/stream-notifier/files/streamnotifiers.yaml"))?;
    ensure!(
        copy == crd,
        "charts/stream-notifier/files/streamnotifiers.yaml is not crds/streamnotifiers.yaml: run `make generate`"
    );

    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let kubectl = control_plane.kubectl();
    let generated = objects(kubectl, &crd).await?.remove(0);
    let rendered = render(&helm, kubectl, &[]).await?;
    let rendered = one(&rendered, "CustomResourceDefinition")?;
    ensure!(
        rendered["spec"] == generated["spec"] && name(rendered)? == name(&generated)?,
        "the chart must not change the CustomResourceDefinition"
    );
    let policy = "/metadata/annotations/helm.sh~1resource-policy";
    ensure!(rendered.pointer(policy) == Some(&json!("keep")));

    let rendered = render(&helm, kubectl, &["--set=crds.keep=false"]).await?;
    ensure!(one(&rendered, "CustomResourceDefinition")?.pointer(policy).is_none());
    let rendered = render(&helm, kubectl, &["--set=crds.enabled=false"]).await?;
    ensure!(one(&rendered, "CustomResourceDefinition").is_err());
    Ok(())
}

#[tokio::test]
async fn renders_deterministically_and_rejects_unknown_values() -> Result<()> {
    let helm = ControlPlane::shared().await?.helm().await?;
    let chart = chart_path()?;
    helm.run(&["lint", "--strict", &chart]).await?;

    let sets: [&[&str]; 2] = [&[], &["--set=watchNamespace=dev,podLabels.team=a,podLabels.app=b"]];
    for set in sets {
        let template = [&["template", "release", &chart], set].concat();
        ensure!(helm.run(&template).await? == helm.run(&template).await?);
    }

    for (flag, part) in [
        ("--set=watchNamespaces=dev", "watchNamespaces"),
        ("--set=image.name=other", "name"),
        ("--set=image.pullPolicy=Sometimes", "pullPolicy"),
        ("--set=watchNamespace=Dev", "watchNamespace"),
        ("--set=allowedWebSocketDomains={https://ws.example.com}", "allowedWebSocketDomains"),
        ("--set=logFormat=xml", "logFormat"),
        ("--set=getRecordsPerSecond=0", "getRecordsPerSecond"),
        ("--set=postsPerSecond=0", "postsPerSecond"),
        ("--set=extraArgs={--bind-address=0.0.0.0:9090}", "port 8080"),
        ("--set-json=extraEnv=[{\"name\": \"STREAM_NOTIFIER_BIND_ADDRESS\"}]", "port 8080"),
        ("--set=commonLabels.replicas=1", "commonLabels"),
        ("--kube-version=1.32.9", "kubeVersion"),
    ] {
        let error = match helm.run(&["template", "release", &chart, flag]).await {
            Ok(_) => bail!("{flag} must be rejected"),
            Err(error) => format!("{error:#}"),
        };
        ensure!(error.contains(part), "{flag}: {error}");
    }
    // The version of a managed cluster.
    let managed = "--kube-version=v1.33.1-eks-0a1b2c3";
    helm.run(&["template", "release", &chart, managed]).await.map(drop)
}

#[tokio::test]
async fn sets_common_labels_and_aggregated_roles() -> Result<()> {
    let control_plane = ControlPlane::shared().await?;
    let helm = control_plane.helm().await?;
    let set = [
        "--set=fullnameOverride=other,priorityClassName=high,rbac.aggregate=true",
        "--set=commonLabels.team=a,commonLabels.app\\.kubernetes\\.io/name=b",
        "--set-json=volumes=[{\"name\": \"certificates\", \"emptyDir\": {}}]",
        "--set-json=volumeMounts=[{\"name\": \"certificates\", \"mountPath\": \"/certificates\"}]",
        "--set-json=topologySpreadConstraints=[{\"maxSkew\": 1}]",
    ];
    let rendered = render(&helm, control_plane.kubectl(), &set).await?;
    for object in &rendered {
        let labels = &object["metadata"]["labels"];
        ensure!(labels["team"] == "a", "{object}");
        // The labels of the selector stay those of the chart.
        ensure!(labels["app.kubernetes.io/name"] == "stream-notifier", "{object}");
    }
    let deployment = one(&rendered, "Deployment")?;
    ensure!(name(deployment)? == "other");
    let pod = &deployment["spec"]["template"];
    ensure!(pod["metadata"]["labels"]["team"] == "a", "{pod}");
    ensure!(pod["spec"]["priorityClassName"] == "high", "{pod}");
    ensure!(pod["spec"]["volumes"][0]["name"] == "certificates", "{pod}");
    let mount = &pod["spec"]["containers"][0]["volumeMounts"][0];
    ensure!(mount["mountPath"] == "/certificates", "{pod}");
    ensure!(pod["spec"]["topologySpreadConstraints"][0]["maxSkew"] == 1, "{pod}");

    let aggregated = |rendered: &[Value], role: &str| -> Vec<Value> {
        let label = format!("rbac.authorization.k8s.io/aggregate-to-{role}");
        let has_name = |object: &&Value| object["metadata"]["labels"][&label] == "true";
        let roles = rendered.iter().filter(has_name);
        roles.flat_map(|role| list(&role["rules"][0]["verbs"]).unwrap_or_default()).collect()
    };
    let read = ["get", "list", "watch"];
    let write = ["create", "delete", "deletecollection", "patch", "update"];
    ensure!(aggregated(&rendered, "view") == read);
    ensure!(aggregated(&rendered, "edit") == [&read[..], &write].concat());
    ensure!(aggregated(&rendered, "admin") == aggregated(&rendered, "edit"));
    let default = render(&helm, control_plane.kubectl(), &[]).await?;
    ensure!(aggregated(&default, "admin").is_empty());
    Ok(())
}

#[tokio::test]
async fn documents_every_value_in_readme_and_schema() -> Result<()> {
    let helm = ControlPlane::shared().await?.helm().await?;
    let dry = ["install", "release", &chart_path()?, "--dry-run=client", "--output=json"];
    let release: Value = serde_json::from_str(&helm.run(&dry).await?)?;
    let root = repository_root()?;
    let schema = fs::read_to_string(root.join("charts/stream-notifier/values.schema.json"))?;
    let schema: Value = serde_json::from_str(&schema)?;

    // A value is a leaf of the schema.
    let mut values = BTreeMap::new();
    flatten(&schema, &release["chart"]["values"], "", &mut values)?;
    let readme = fs::read_to_string(root.join("charts/stream-notifier/README.md"))?;
    let mut rows = BTreeMap::new();
    for row in readme.lines().filter_map(|line| line.strip_prefix("| `")) {
        let (value, rest) = row.split_once("` | `").context("the row must name a value")?;
        let (default, _) = rest.split_once("` | ").context("the row must have a default")?;
        rows.insert(value.to_owned(), default.to_owned());
    }
    ensure!(
        rows == values,
        "the table of charts/stream-notifier/README.md has\n{rows:#?}\nand values.yaml has\n{values:#?}"
    );
    Ok(())
}

/// Collects the default of each leaf as JSON, by its path `parent.child`.
fn flatten(
    schema: &Value,
    value: &Value,
    path: &str,
    values: &mut BTreeMap<String, String>,
) -> Result<()> {
    let Some(properties) = schema["properties"].as_object() else {
        values.insert(path.to_owned(), value.to_string());
        return Ok(());
    };
    let defaults = value.as_object().with_context(|| format!("{path} must be an object"))?;
    for key in defaults.keys() {
        ensure!(properties.contains_key(key), "the schema lacks {path}.{key}");
    }
    for (key, schema) in properties {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match defaults.get(key) {
            // Kubernetes defines the fields of `resources`.
            Some(value) if key == "resources" => drop(values.insert(path, value.to_string())),
            Some(value) => flatten(schema, value, &path, values)?,
            None => ensure!(path == "global", "values.yaml lacks {path}"),
        }
    }
    Ok(())
}

/// The objects that the chart renders with these flags.
async fn render(helm: &Helm, kubectl: &Kubectl, flags: &[&str]) -> Result<Vec<Value>> {
    let chart = chart_path()?;
    let rendered = helm.run(&[&["template", "release", &chart], flags].concat()).await?;
    objects(kubectl, &rendered).await
}

/// The objects of a YAML manifest, parsed by kubectl.
async fn objects(kubectl: &Kubectl, manifest: &str) -> Result<Vec<Value>> {
    let read = ["create", "--dry-run=client", "--validate=ignore", "-o", "json", "-f", "-"];
    let json = kubectl.run_with(&read, manifest).await?;
    let documents = serde_json::Deserializer::from_str(&json).into_iter::<Value>();
    Ok(documents.collect::<Result<_, _>>()?)
}

/// The only object of a kind.
fn one<'a>(objects: &'a [Value], kind: &str) -> Result<&'a Value> {
    let mut found = objects.iter().filter(|object| object["kind"] == kind);
    let object = found.next().with_context(|| format!("there must be a {kind}"))?;
    ensure!(found.next().is_none(), "there must be only one {kind}");
    Ok(object)
}
