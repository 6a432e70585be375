//! The origin's loop: `../origin/app.py`, a process of its own.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stream_notifier_tests::fakes::STREAM;
use stream_notifier_tests::tools::tool;
use tokio::process::Command;

use super::Taken;

/// The Python that has chalice; says what is missing where it cannot be had.
pub async fn python() -> Result<std::path::PathBuf> {
    tool("origin").await
}

/// What each of some changes takes.
pub async fn changes(
    service: &str,
    stage: u64,
    connections: usize,
    runs: usize,
) -> Result<Vec<Taken>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/origin");
    let output = Command::new(python().await?)
        // Nothing is left in the checkout.
        .args(["-B", "measure.py", &connections.to_string(), &runs.to_string()])
        .current_dir(folder)
        .env("STREAM_ARN", STREAM)
        .env("WEB_SOCKET_API", format!("{service}/{stage}"))
        .env("AWS_ENDPOINT_URL_DYNAMODB", service)
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_DEFAULT_REGION", "eu-west-1")
        .env("AWS_ACCESS_KEY_ID", "local")
        .env("AWS_SECRET_ACCESS_KEY", "local")
        .stderr(Stdio::inherit())
        .output()
        .await?;
    ensure!(output.status.success(), "the origin's loop failed");
    let taken: Vec<[f64; 2]> =
        serde_json::from_slice(&output.stdout).context("it prints what it took")?;
    let taken = taken.into_iter().map(|taken| taken.map(Duration::from_secs_f64));
    Ok(taken.map(|[time, cpu]| Taken { time, cpu }).collect())
}
