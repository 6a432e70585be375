//! Writes what is settled: soon after it changed, never more often than every few seconds, and not
//! at all while nothing changes. Then it only looks, now and then, whether the claim still stands.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::positions::Positions;
use super::problems::checkpoint_problem;
use super::store::StoreError;
use super::writer::{CheckpointWriter, ClaimError};
use crate::telemetry::{Component, Health, NotifierTelemetry};
use crate::timing::FailureTracker;

/// Checkpoints are written at most this often.
const WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// While nothing is settled, the claim is looked after this often; that only reads.
const CLAIM_CHECK_INTERVAL: Duration = Duration::from_secs(60);

/// A stop has this long for the last one.
const FINAL_WRITE_TIMEOUT: Duration = Duration::from_secs(8);
const FINAL_WRITE_RETRY_INTERVAL: Duration = Duration::from_millis(250);

/// Writes until the checkpoint is ours no longer, and says why.
pub async fn run_checkpoint_loop(
    keeper: &mut CheckpointWriter,
    positions: &Positions,
    health: &Health,
    telemetry: &NotifierTelemetry,
) -> ClaimError {
    let mut failing = FailureTracker::new(Duration::ZERO);
    loop {
        let saved = match timeout(CLAIM_CHECK_INTERVAL, positions.changed()).await {
            Ok(()) => save(keeper, positions, telemetry, false).await,
            // Nothing to store; but whoever has claimed it meanwhile would post beside us.
            Err(_) => match keeper.verify_claim().await {
                Ok(()) => save(keeper, positions, telemetry, false).await,
                Err(error) => Err(error),
            },
        };
        match saved {
            Ok(_) => {
                failing.record_success();
                health.clear(&Component::Checkpoint);
            }
            Err(error) if is_permanent(&error) => return error,
            Err(error) => {
                telemetry.retry(&error);
                let is_denied = matches!(&error, ClaimError::Store(StoreError::AccessDenied(_)));
                if failing.record_failure() || is_denied {
                    health.set_problem(Component::Checkpoint, checkpoint_problem(&error));
                }
                positions.mark_dirty();
            }
        }
        sleep(WRITE_INTERVAL).await;
    }
}

/// Writes for the last time, trying again for as long as a stop may take.
pub async fn write_final_checkpoint(
    keeper: &mut CheckpointWriter,
    positions: &Positions,
    telemetry: &NotifierTelemetry,
) -> Option<ClaimError> {
    if fault!(FinalCheckpointNotWritten) {
        return None;
    }
    let saved = async {
        loop {
            match save(keeper, positions, telemetry, true).await {
                Ok(_) => return None,
                Err(error) if is_permanent(&error) => return Some(error),
                Err(error) => telemetry.retry(&error),
            }
            sleep(FINAL_WRITE_RETRY_INTERVAL).await;
        }
    };
    timeout(FINAL_WRITE_TIMEOUT, saved).await.unwrap_or(None)
}

async fn save(
    keeper: &mut CheckpointWriter,
    positions: &Positions,
    telemetry: &NotifierTelemetry,
    is_last: bool,
) -> Result<bool, ClaimError> {
    let saved = keeper.save(positions.all(), positions.read_at().into(), is_last).await;
    match saved {
        Ok(false) => {}
        Ok(true) => telemetry.checkpoint_write(true),
        Err(_) => telemetry.checkpoint_write(false),
    }
    saved
}

/// Whether the checkpoint is somebody else's, or nobody's: nothing that passes by itself.
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
