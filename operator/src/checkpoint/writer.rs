//! Writes a claimed checkpoint. The first write claims it for this process, and every later write fails if
//! another process has claimed it since.
//!
//! After a conflict or an unknown outcome, the writer loads the checkpoint again. It continues if holder
//! and epoch are its own. Otherwise the claim is lost.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::format_v1::{Checkpoint, FormatError};
use super::store::{CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint};
use crate::model::{Position, ShardId};

/// The outcome of a request that takes longer is unknown.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// How often `readAt` is stored if no position changed. One that is 24 hours old would look like a data
/// gap after a restart.
const READ_AT_REFRESH_INTERVAL: SignedDuration = SignedDuration::from_hours(6);

/// Attempts of one claim while others write at the same time.
const MAX_CLAIM_ATTEMPTS: u32 = 5;

/// A claimed checkpoint.
#[derive(Debug)]
pub struct CheckpointWriter {
    store: Arc<dyn CheckpointStore>,
    checkpoint: Checkpoint,
    /// The version that the next write replaces; `None` creates the checkpoint.
    version: Option<ResourceVersion>,
    /// Whether the outcome of the last write is unknown.
    outcome_unknown: bool,
}

/// The checkpoint cannot be claimed or written.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Another process has claimed it.
    #[error(
        "checkpoint cannot be stored: {holder:?} has claimed it; run at most one operator per namespace, and restart the remaining one"
    )]
    TakenOver {
        /// That process.
        holder: String,
    },
    /// The stored checkpoint does not parse.
    #[error("checkpoint cannot be read")]
    Format(#[source] FormatError),
    /// The store failed. A retry may succeed.
    #[error("checkpoint cannot be stored")]
    Store(#[source] StoreError),
}

impl CheckpointWriter {
    /// Loads the checkpoint, if there is one, without a claim.
    pub async fn peek(store: &dyn CheckpointStore) -> Result<Option<Checkpoint>, ClaimError> {
        let stored = load(store).await.map_err(ClaimError::Store)?;
        let read = |StoredCheckpoint { data, .. }| {
            Checkpoint::from_data(&data).map_err(ClaimError::Format)
        };
        stored.map(read).transpose()
    }

    /// Claims the checkpoint for `holder` by a write. `open` maps the stored checkpoint to the one to
    /// continue with; holder and epoch are then replaced.
    pub async fn claim(
        store: Arc<dyn CheckpointStore>,
        holder: &str,
        open: impl Fn(Option<Checkpoint>) -> Checkpoint,
    ) -> Result<Self, ClaimError> {
        let mut attempts = 0;
        loop {
            let stored = load(&*store).await.map_err(ClaimError::Store)?;
            let (found, version) = match stored {
                None => (None, None),
                Some(StoredCheckpoint { data, version }) => {
                    let found = Checkpoint::from_data(&data).map_err(ClaimError::Format)?;
                    (Some(found), Some(version))
                }
            };
            let epoch = found.as_ref().map_or(0, |found| found.epoch).saturating_add(1);
            let checkpoint = Checkpoint { holder: holder.to_owned(), epoch, ..open(found) };
            if version.is_some() && fault!(ClaimNotWritten) {
                return Ok(Self { store, checkpoint, version, outcome_unknown: false });
            }
            attempts += 1;
            match save(&*store, &checkpoint, version.as_ref()).await {
                Ok(version) => {
                    return Ok(Self {
                        store,
                        checkpoint,
                        version: Some(version),
                        outcome_unknown: false,
                    });
                }
                // Load it again. If the write of unknown outcome succeeded, the epoch increases twice.
                Err(StoreError::Conflict | StoreError::Unknown(_))
                    if attempts < MAX_CLAIM_ATTEMPTS => {}
                Err(error) => return Err(ClaimError::Store(error)),
            }
        }
    }

    /// The checkpoint of the last successful write.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Stores these positions and the time when all shards were last read, if they changed. Returns
    /// `true` if it wrote.
    ///
    /// Cancel safe: after a cancelled call, the next call finds out what was written.
    pub async fn save(
        &mut self,
        shards: BTreeMap<ShardId, Position>,
        read_at: Timestamp,
        is_last: bool,
    ) -> Result<bool, ClaimError> {
        let between = if is_last { SignedDuration::from_mins(1) } else { READ_AT_REFRESH_INTERVAL };
        let is_old = read_at.duration_since(self.checkpoint.read_at) >= between;
        if self.outcome_unknown {
            self.reload_and_verify().await?;
        } else if shards == self.checkpoint.shards && !is_old {
            return Ok(false);
        }
        let next = Checkpoint { shards, read_at, ..self.checkpoint.clone() };
        self.outcome_unknown = true;
        let saved = match save(&*self.store, &next, self.version.as_ref()).await {
            Err(StoreError::Conflict | StoreError::Unknown(_)) => {
                self.reload_and_verify().await?;
                save(&*self.store, &next, self.version.as_ref()).await
            }
            saved => saved,
        };
        self.version = Some(saved.map_err(ClaimError::Store)?);
        self.checkpoint = next;
        self.outcome_unknown = false;
        Ok(true)
    }

    /// Verifies the claim while there is nothing to store. The next [`Self::save`] writes a deleted
    /// checkpoint again.
    pub async fn verify_claim(&mut self) -> Result<(), ClaimError> {
        let was_unknown = std::mem::replace(&mut self.outcome_unknown, true);
        self.reload_and_verify().await?;
        self.outcome_unknown = was_unknown || self.version.is_none();
        Ok(())
    }

    /// Loads the checkpoint and verifies holder and epoch. One that was deleted by hand is created again
    /// from memory, so that nothing is lost. If two processes do so, one of the creations conflicts.
    async fn reload_and_verify(&mut self) -> Result<(), ClaimError> {
        let Some(stored) = load(&*self.store).await.map_err(ClaimError::Store)? else {
            self.version = None;
            return Ok(());
        };
        let found = Checkpoint::from_data(&stored.data).map_err(ClaimError::Format)?;
        let is_own = found.holder == self.checkpoint.holder && found.epoch == self.checkpoint.epoch;
        if !is_own && !fault!(CheckpointHolderNotVerified) {
            return Err(ClaimError::TakenOver { holder: found.holder });
        }
        self.version = Some(stored.version);
        Ok(())
    }
}

async fn load(store: &dyn CheckpointStore) -> Result<Option<StoredCheckpoint>, StoreError> {
    timeout(STORE_TIMEOUT, store.load())
        .await
        .unwrap_or_else(|timeout| Err(StoreError::Unknown(timeout.into())))
}

async fn save(
    store: &dyn CheckpointStore,
    checkpoint: &Checkpoint,
    expected: Option<&ResourceVersion>,
) -> Result<ResourceVersion, StoreError> {
    let data = checkpoint.to_data();
    timeout(STORE_TIMEOUT, store.save(&data, expected))
        .await
        .unwrap_or_else(|timeout| Err(StoreError::Unknown(timeout.into())))
}
