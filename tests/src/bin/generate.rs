//! Writes the generated pages of `docs/`, and the table of values in the chart's README: `make generate`.

use std::fs;

use anyhow::{Context as _, Result};
use stream_notifier::api::conditions_page;
use stream_notifier::telemetry::metrics_page;
use stream_notifier_tests::chart::{chart_readme, repository_file};

fn main() -> Result<()> {
    for (path, content) in [
        ("docs/conditions.md", conditions_page()),
        ("docs/metrics.md", metrics_page()),
        ("charts/stream-notifier/README.md", chart_readme()?),
    ] {
        fs::write(repository_file(path), content).with_context(|| path.to_owned())?;
    }
    Ok(())
}
