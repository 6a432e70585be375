//! Waits until something holds, at most so long, and says what it waited for where it never did.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

/// Asks `attempt` again and again. An error means "not yet"; when the limit is reached the last one
/// is the cause of the error that comes back.
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
            Err(_) => anyhow!("the last attempt did not come back in time"),
        };
        if Instant::now() >= end {
            return Err(last.context(format!("waited {limit:?} in vain for {what}")));
        }
        // The only sleep of the harness. What is asked here (a server that starts, an object of the
        // API server) tells nobody when it changes, and asking without a pause would take the
        // processor from those it waits for.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
