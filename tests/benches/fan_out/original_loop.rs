//! The loop of the original application: `../origin/app.py`, in a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stream_notifier_tests::fakes::STREAM;
use stream_notifier_tests::tools::tool;
use tokio::process::Command;

use super::Cost;

/// The Python interpreter with chalice. The error names what is missing.
pub async fn python() -> Result<std::path::PathBuf> {
    tool("origin").await
}

/// Measures the cost of each of these runs.
pub async fn measure(
    service: &str,
    delay_ms: u64,
    connections: usize,
    runs: usize,
) -> Result<Vec<Cost>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/origin");
    let output = Command::new(python().await?)
        // Without bytecode files in the checkout.
        .args(["-B", "measure.py", &connections.to_string(), &runs.to_string()])
        .current_dir(folder)
        .env("STREAM_ARN", STREAM)
        .env("WEB_SOCKET_API", format!("{service}/{delay_ms}"))
        .env("AWS_ENDPOINT_URL_DYNAMODB", service)
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_DEFAULT_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "the original loop failed");
    let costs: Vec<[f64; 2]> =
        serde_json::from_slice(&output.stdout).context("output of measure.py")?;
    let costs = costs.into_iter().map(|cost| cost.map(Duration::from_secs_f64));
    Ok(costs.map(|[time, cpu]| Cost { time, cpu }).collect())
}
