//! Writes the generated pages of `docs/`: `make generate`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use stream_notifier::api::conditions_page;
use stream_notifier::telemetry::metrics_page;

fn main() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("no folder above")?;
    for (path, page) in
        [("docs/conditions.md", conditions_page()), ("docs/metrics.md", metrics_page())]
    {
        fs::write(root.join(path), page).with_context(|| path.to_owned())?;
    }
    Ok(())
}
