//! A stop that a person, or Kubernetes, asks for.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::CommandError;
use crate::telemetry;

/// Cancelled by the first SIGTERM or SIGINT.
pub fn shutdown_token() -> Result<CancellationToken, CommandError> {
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let told = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        telemetry::stopping();
        told.cancel();
    });
    Ok(stop)
}
