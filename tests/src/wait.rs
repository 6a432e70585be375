//! Waits for a condition with a timeout.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Retries `attempt` until it succeeds. The error of the last attempt is the cause of the error
/// after the timeout.
pub async fn eventually<T, F>(
    limit: Duration,
    what: impl Display,
    mut attempt: impl FnMut() -> F,
) -> Result<T>
where
    F: Future<Output = Result<T>>,
{
    let end = Instant::now() + limit;
    loop {
        let last = match tokio::time::timeout_at(end.into(), attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(_) => anyhow!("the last attempt did not finish"),
        };
        if Instant::now() >= end {
            return Err(last.context(format!("timed out after {limit:?} waiting for {what}")));
        }
        // The only sleep of the harness. Servers do not notify a test of every change, and retries
        // without a pause would take CPU time from them.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
