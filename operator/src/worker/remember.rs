//! Writes what is settled: soon after it changed, never more often than every few seconds, and not
//! at all while nothing changes.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::positions::Positions;
use super::trouble;
use crate::checkpoint::{CheckpointStore, ClaimError, Keeper, StoreError};
use crate::telemetry::{Health, NotifierTelemetry, Part};

/// Checkpoints are written at most this often.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(5);

/// A store that fails is told once it has failed for this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Writes until the checkpoint is ours no longer, and says why.
pub async fn remember<K: CheckpointStore>(
    keeper: &mut Keeper<K>,
    positions: &Positions,
    health: &Health,
    telemetry: &NotifierTelemetry,
) -> ClaimError {
    let mut well_at = Instant::now();
    loop {
        positions.moved().await;
        match keeper.save(positions.all()).await {
            Ok(written) => {
                if written {
                    telemetry.checkpointed();
                }
                well_at = Instant::now();
                health.well(&Part::Checkpoint);
            }
            Err(ClaimError::Store(
                why @ (StoreError::Conflict | StoreError::Unknown(_) | StoreError::AccessDenied(_)),
            )) => {
                let error = ClaimError::Store(why);
                telemetry.retrying(&error);
                if well_at.elapsed() >= PATIENCE {
                    health.troubled(Part::Checkpoint, trouble::checkpoint(&error));
                }
                positions.look_again();
            }
            Err(
                lost @ (ClaimError::Lost { .. }
                | ClaimError::Format(_)
                | ClaimError::Store(StoreError::NotOwned)),
            ) => return lost,
        }
        sleep(BETWEEN_CHECKPOINTS).await;
    }
}
