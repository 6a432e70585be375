//! Cancellation on SIGTERM and SIGINT.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::error::CommandError;
use crate::telemetry;

/// Creates a token that the first SIGTERM or SIGINT cancels.
pub fn shutdown_token() -> Result<CancellationToken, CommandError> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        tokio::select! {
            biased;
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        telemetry::shutdown_started();
        cancelled.cancel();
    });
    Ok(token)
}
