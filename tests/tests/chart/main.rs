//! The Helm chart, rendered without a cluster: generated files, combinations of values, rejected values,
//! and the objects of single values.

mod combinations;
mod generated;
mod notes;
mod rejected;
mod rendering;

use anyhow::{Result, bail};
use serde_json::Value;
use stream_notifier_tests::chart::{chart_path, parse_objects};
use stream_notifier_tests::helm::Helm;
use stream_notifier_tests::scratch::Scratch;
use stream_notifier_tests::tools::tool;

/// The chart as a user without a cluster sees it.
struct Chart {
    helm: Helm,
    scratch: Scratch,
}

impl Chart {
    async fn new() -> Result<Self> {
        let scratch = Scratch::new("chart")?;
        // The file does not exist, because no command needs a cluster.
        let helm = Helm::new(tool("helm").await?, scratch.path().join("kubeconfig"));
        Ok(Self { helm, scratch })
    }

    /// The manifests of a release with these flags.
    async fn template(&self, release: &str, flags: &[&str]) -> Result<String> {
        self.helm.run(&[&["template", release, &chart_path()], flags].concat()).await
    }

    /// The objects of a release with these flags.
    async fn render(&self, flags: &[&str]) -> Result<Vec<Value>> {
        parse_objects(&self.template("release", flags).await?)
    }

    /// The error of values that the chart must reject.
    async fn rejection(&self, flags: &[&str]) -> Result<String> {
        match self.template("release", flags).await {
            Ok(_) => bail!("the chart must reject {flags:?}"),
            Err(error) => Ok(format!("{error:#}")),
        }
    }
}

/// The only container of the operator's Pod.
fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}
