//! Writes what is settled: soon after it changed, never more often than every few seconds, and not
//! at all while nothing changes. Then it only looks, now and then, whether the claim still stands.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::positions::Positions;
use super::problems::checkpoint as checkpoint_problem;
use super::store::StoreError;
use super::writer::{ClaimError, Keeper};
use crate::telemetry::{Health, NotifierTelemetry, Part};
use crate::timing::Failing;

/// Checkpoints are written at most this often.
const BETWEEN_CHECKPOINTS: Duration = Duration::from_secs(5);

/// While nothing is settled, the claim is looked after this often; that only reads.
const BETWEEN_LOOKS: Duration = Duration::from_secs(60);

/// A stop has this long for the last one.
const LAST_TRIES: Duration = Duration::from_secs(8);
const BETWEEN_LAST_TRIES: Duration = Duration::from_millis(250);

/// Writes until the checkpoint is ours no longer, and says why.
pub async fn remember(
    keeper: &mut Keeper,
    positions: &Positions,
    health: &Health,
    telemetry: &NotifierTelemetry,
) -> ClaimError {
    let mut failing = Failing::new(Duration::ZERO);
    loop {
        let saved = match timeout(BETWEEN_LOOKS, positions.moved()).await {
            Ok(()) => save(keeper, positions, telemetry, false).await,
            // Nothing to store; but whoever has claimed it meanwhile would post beside us.
            Err(_) => match keeper.confirm().await {
                Ok(()) => save(keeper, positions, telemetry, false).await,
                Err(error) => Err(error),
            },
        };
        match saved {
            Ok(_) => {
                failing.worked();
                health.well(&Part::Checkpoint);
            }
            Err(error) if is_lost(&error) => return error,
            Err(error) => {
                telemetry.retrying(&error);
                let is_denied = matches!(&error, ClaimError::Store(StoreError::AccessDenied(_)));
                if failing.has_lasted() || is_denied {
                    health.troubled(Part::Checkpoint, checkpoint_problem(&error));
                }
                positions.look_again();
            }
        }
        sleep(BETWEEN_CHECKPOINTS).await;
    }
}

/// Writes for the last time, trying again for as long as a stop may take.
pub async fn remember_at_last(
    keeper: &mut Keeper,
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
                Err(error) if is_lost(&error) => return Some(error),
                Err(error) => telemetry.retrying(&error),
            }
            sleep(BETWEEN_LAST_TRIES).await;
        }
    };
    timeout(LAST_TRIES, saved).await.unwrap_or(None)
}

async fn save(
    keeper: &mut Keeper,
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
fn is_lost(error: &ClaimError) -> bool {
    match error {
        ClaimError::Lost { .. } if fault!(LostClaimIgnored) => false,
        ClaimError::Lost { .. }
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
