//! Writes the checkpoint when positions changed, at most every 5 s. While idle, verifies the claim once a
//! minute.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::positions::Positions;
use super::problems::checkpoint_problem;
use super::store::StoreError;
use super::writer::{CheckpointWriter, ClaimError};
use crate::telemetry::{Component, Health, NotifierTelemetry};
use crate::timing::FailureTracker;

/// The minimum time between two writes.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// How often the claim is verified while positions do not change. This only reads.
const CLAIM_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// The time that a stop has for the final write.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(8);
const FINAL_WRITE_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Writes the checkpoint until the claim is lost or the checkpoint is unusable, and returns why.
pub async fn run_checkpoint_loop(
    writer: &mut CheckpointWriter,
    positions: &Positions,
    health: &Health,
    telemetry: &NotifierTelemetry,
) -> ClaimError {
    let mut failures = FailureTracker::new(Duration::ZERO);
    loop {
        let saved = match timeout(CLAIM_CHECK_INTERVAL, positions.changed()).await {
            Ok(()) => save(writer, positions, telemetry, false).await,
            // Nothing to store. But another process that claimed the checkpoint would post, too.
            Err(_) => match writer.verify_claim().await {
                Ok(()) => save(writer, positions, telemetry, false).await,
                Err(error) => Err(error),
            },
        };
        match saved {
            Ok(_) => {
                failures.record_success();
                health.clear(&Component::Checkpoint);
            }
            Err(error) if is_permanent(&error) => return error,
            Err(error) => {
                telemetry.request_failed(&error);
                let is_denied = matches!(&error, ClaimError::Store(StoreError::AccessDenied(_)));
                if failures.record_failure() || is_denied {
                    health.set_problem(Component::Checkpoint, checkpoint_problem(&error));
                }
                positions.mark_dirty();
            }
        }
        sleep(WRITE_INTERVAL).await;
    }
}

/// Writes the final checkpoint, with retries. Returns why the claim is lost, if it is.
pub async fn write_final_checkpoint(
    writer: &mut CheckpointWriter,
    positions: &Positions,
    telemetry: &NotifierTelemetry,
) -> Option<ClaimError> {
    if fault!(FinalCheckpointNotWritten) {
        return None;
    }
    let saved = async {
        loop {
            match save(writer, positions, telemetry, true).await {
                Ok(()) => return None,
                Err(error) if is_permanent(&error) => return Some(error),
                Err(error) => telemetry.request_failed(&error),
            }
            sleep(FINAL_WRITE_RETRY_INTERVAL).await;
        }
    };
    timeout(FINAL_WRITE_TIMEOUT, saved).await.unwrap_or_else(|_| {
        telemetry.checkpoint_write(false);
        None
    })
}

async fn save(
    writer: &mut CheckpointWriter,
    positions: &Positions,
    telemetry: &NotifierTelemetry,
    is_last: bool,
) -> Result<(), ClaimError> {
    let saved = writer.save(positions.all(), positions.read_at().into(), is_last).await;
    match saved {
        Ok(false) => {}
        Ok(true) => telemetry.checkpoint_write(true),
        Err(_) => telemetry.checkpoint_write(false),
    }
    saved.map(drop)
}

/// Whether retries cannot succeed, because the checkpoint has another holder or is unusable.
fn is_permanent(error: &ClaimError) -> bool {
    match error {
        ClaimError::TakenOver { .. } if fault!(LostClaimIgnored) => false,
        ClaimError::TakenOver { .. }
        | ClaimError::Format(_)
        | ClaimError::Store(StoreError::NotOwned(_) | StoreError::NotYetDeleted(_)) => true,
        ClaimError::Store(
            StoreError::Conflict
            | StoreError::Unknown(_)
            | StoreError::AccessDenied(_)
            | StoreError::TooLarge(_),
        ) => false,
    }
}
