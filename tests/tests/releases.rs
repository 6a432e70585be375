//! The life of a release with Helm 3 and Helm 4: `make test-charts`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use stream_notifier_tests::chart::{chart_path, repository_file};
use stream_notifier_tests::control_plane::ControlPlane;
use stream_notifier_tests::helm::Helm;
use stream_notifier_tests::kubectl::Kubectl;
use stream_notifier_tests::scratch::Scratch;
use stream_notifier_tests::tools::tool;

const CRD: &str = "streamnotifiers.streamnotifier.dev";

/// Starts the column that the next version of the CustomResourceDefinition has.
const COLUMNS: &str = "  - additionalPrinterColumns:\n";
const NEW_COLUMN: &str = "    - {name: Table, type: string, jsonPath: .spec.tableArn}\n";

#[tokio::test]
#[ignore = "run it with `make test-charts`"]
async fn keeps_notifiers_through_a_release_of_helm_3() -> Result<()> {
    let helm = ["--take-ownership"];
    Cluster::start("helm3", "v3.").await?.run_release(&helm).await
}

#[tokio::test]
#[ignore = "run it with `make test-charts`"]
async fn keeps_notifiers_through_a_release_of_helm_4() -> Result<()> {
    let helm = ["--take-ownership", "--force-conflicts"];
    Cluster::start("helm", "v4.").await?.run_release(&helm).await
}

struct Cluster {
    helm: Helm,
    kubectl: Kubectl,
    _control_plane: ControlPlane,
}

impl Cluster {
    async fn start(helm: &'static str, version: &str) -> Result<Self> {
        let control_plane = ControlPlane::start().await?;
        let helm = Helm::new(tool(helm).await?, control_plane.kubeconfig());
        let found = helm.run(&["version", "--template", "{{.Version}}"]).await?;
        ensure!(found.starts_with(version), "{found}");
        Ok(Self { helm, kubectl: control_plane.kubectl().clone(), _control_plane: control_plane })
    }

    /// Runs a release from its installation to its end. `take_over` are the flags of the README for a
    /// CustomResourceDefinition that another release left behind.
    async fn run_release(&self, take_over: &[&str]) -> Result<()> {
        let (chart, scratch) = (chart_path(), Scratch::new("next-chart")?);
        let next = write_next_chart(&scratch)?;
        self.helm("install", "notifier", &chart, &["--create-namespace"]).await?;
        self.kubectl.run(&["create", "namespace", "dev"]).await?;
        let established = "--for=condition=Established";
        self.kubectl.run(&["wait", established, &format!("crd/{CRD}")]).await?;
        let example = repository_file("examples/target-attribute.yaml").display().to_string();
        self.kubectl.run(&["create", "-f", &example]).await?;
        let created = self.notifier_uid().await?;
        ensure!(!self.has_new_column().await?);

        self.helm("upgrade", "notifier", &next, &["--set=logLevel=debug"]).await?;
        ensure!(
            self.has_new_column().await?,
            "the upgrade must change the CustomResourceDefinition"
        );
        ensure!(self.notifier_uid().await? == created, "the upgrade must keep the notifier");

        self.helm.run(&["rollback", "notifier", "1", "--namespace=operators"]).await?;
        ensure!(!self.has_new_column().await?, "the rollback must restore the definition");
        ensure!(self.notifier_uid().await? == created, "the rollback must keep the notifier");

        self.uninstall("notifier").await?;
        ensure!(self.notifier_uid().await? == created, "the end must keep the notifier");
        for kind in ["deployment", "serviceaccount", "clusterrole", "clusterrolebinding"] {
            let name = format!("{kind}/notifier-stream-notifier");
            let get = ["get", &name, "--namespace=operators"];
            let output = self.kubectl.output(&get, "").await?;
            ensure!(!output.status.success(), "{name} must not remain");
        }

        // The same release can come back, another one must take over.
        self.helm("install", "notifier", &chart, &[]).await?;
        self.uninstall("notifier").await?;
        let error = self.helm("install", "other", &next, &[]).await;
        let error = format!("{:#}", error.err().context("it must not take over by itself")?);
        ensure!(error.contains("cannot be imported into the current release"), "{error}");
        self.helm("install", "other", &next, take_over).await?;
        ensure!(self.has_new_column().await?, "the new release must change the definition");
        ensure!(self.notifier_uid().await? == created, "the new release must keep the notifier");

        self.helm("upgrade", "other", &next, &["--set=crds.keep=false"]).await?;
        self.uninstall("other").await?;
        let output = self.kubectl.output(&["get", "crd", CRD], "").await?;
        ensure!(!output.status.success(), "without crds.keep the definition must not remain");
        Ok(())
    }

    async fn helm(&self, command: &str, release: &str, chart: &str, more: &[&str]) -> Result<()> {
        let arguments = [command, release, chart, "--namespace=operators"];
        self.helm.run(&[&arguments[..], more].concat()).await.map(drop)
    }

    async fn uninstall(&self, release: &str) -> Result<()> {
        let uninstall = ["uninstall", release, "--namespace=operators", "--wait"];
        self.helm.run(&uninstall).await.map(drop)
    }

    async fn has_new_column(&self) -> Result<bool> {
        let crd = self.kubectl.get(&["crd", CRD]).await?;
        let columns = crd["spec"]["versions"][0]["additionalPrinterColumns"].as_array();
        Ok(columns.context("columns")?.iter().any(|column| column["name"] == "Table"))
    }

    async fn notifier_uid(&self) -> Result<Value> {
        let get = ["streamnotifier", "target-attribute", "--namespace=dev"];
        Ok(self.kubectl.get(&get).await?["metadata"]["uid"].clone())
    }
}

/// Writes the chart with another version and another CustomResourceDefinition. Returns its path.
fn write_next_chart(scratch: &Scratch) -> Result<String> {
    let next = scratch.path().join("stream-notifier");
    copy_folder(Path::new(&chart_path()), &next)?;
    for (file, from, to) in [
        ("Chart.yaml", "\nversion: 0.1.0\n", "\nversion: 0.2.0\n"),
        ("files/streamnotifiers.yaml", COLUMNS, &format!("{COLUMNS}{NEW_COLUMN}")),
    ] {
        let path = next.join(file);
        let text = fs::read_to_string(&path)?;
        ensure!(text.matches(from).count() == 1, "{file} must contain {from:?} once");
        fs::write(path, text.replace(from, to))?;
    }
    Ok(next.display().to_string())
}

fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy_folder(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
