//! Writes the generated pages of `docs/`, the table of values in the chart's README, and
//! `deploy/install.yaml`: `make generate`.

use std::fs;

use anyhow::{Context as _, Result};
use stream_notifier::api::conditions_page;
use stream_notifier::telemetry::metrics_page;
use stream_notifier_tests::chart::{chart_readme, install_manifest, repository_file};
use stream_notifier_tests::helm::Helm;
use stream_notifier_tests::tools::tool;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let home = tempfile::tempdir()?;
    let helm = Helm::new(tool("helm").await?, home.path().join("kubeconfig"));
    for (path, content) in [
        ("docs/conditions.md", conditions_page()),
        ("docs/metrics.md", metrics_page()),
        ("charts/stream-notifier/README.md", chart_readme()?),
        ("deploy/install.yaml", install_manifest(&helm).await?),
    ] {
        fs::write(repository_file(path), content).with_context(|| path.to_owned())?;
    }
    Ok(())
}
