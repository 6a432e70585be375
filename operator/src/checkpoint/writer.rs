//! Holds the claim on a checkpoint: its first write makes it ours, every later one fails if
//! somebody else has claimed it since. A conflict or an unknown outcome is read back: our own
//! holder and epoch mean that we go on, anything else that we have lost it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::format_v1::{Checkpoint, FormatError};
use super::store::{CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint};
use crate::model::{Position, ShardId};

/// No call to the store may take longer; its outcome is then unknown.
const STORE_TIMEOUT: Duration = Duration::from_secs(3);

/// While nothing else is to be stored, the time of the last reading is, this often: one that is a
/// day old would be taken for a gap.
const READ_AT_REFRESH_INTERVAL: SignedDuration = SignedDuration::from_hours(6);

/// How often a claim is tried again when others write at the same moment.
const MAX_CLAIM_ATTEMPTS: u32 = 5;

/// A claimed checkpoint.
#[derive(Debug)]
pub struct CheckpointWriter {
    store: Arc<dyn CheckpointStore>,
    checkpoint: Checkpoint,
    /// What the next write must name; `None` creates it.
    version: Option<ResourceVersion>,
    /// Whether the last write's outcome is unknown.
    outcome_unknown: bool,
}

/// Why a checkpoint cannot be claimed, or is ours no longer.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Somebody else has it.
    #[error(
        "checkpoint cannot be stored: {holder:?} has claimed it; run one operator for each namespace, and restart the one that remains"
    )]
    TakenOver {
        /// Who.
        holder: String,
    },
    /// What is stored does not parse.
    #[error("checkpoint cannot be read")]
    Format(#[source] FormatError),
    /// The store failed; trying again may help.
    #[error("checkpoint cannot be stored")]
    Store(#[source] StoreError),
}

impl CheckpointWriter {
    /// What is stored, if anything; it is not claimed by that.
    pub async fn peek(store: &dyn CheckpointStore) -> Result<Option<Checkpoint>, ClaimError> {
        let stored = load(store).await.map_err(ClaimError::Store)?;
        let read = |StoredCheckpoint { data, .. }| {
            Checkpoint::from_data(&data).map_err(ClaimError::Format)
        };
        stored.map(read).transpose()
    }

    /// Claims the checkpoint for `holder`, by a write. `open` says what to go on from, given what
    /// is stored; the keeper sets holder and epoch.
    pub async fn claim(
        store: Arc<dyn CheckpointStore>,
        holder: &str,
        open: impl Fn(Option<Checkpoint>) -> Checkpoint,
    ) -> Result<Self, ClaimError> {
        let mut tries = 0;
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
            tries += 1;
            match save(&*store, &checkpoint, version.as_ref()).await {
                Ok(version) => {
                    return Ok(Self {
                        store,
                        checkpoint,
                        version: Some(version),
                        outcome_unknown: false,
                    });
                }
                // Read again; if the unknown write arrived after all, the epoch just grows by one.
                Err(StoreError::Conflict | StoreError::Unknown(_))
                    if tries < MAX_CLAIM_ATTEMPTS => {}
                Err(error) => return Err(ClaimError::Store(error)),
            }
        }
    }

    /// What is stored, as far as we know.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.checkpoint
    }

    /// Stores these positions, and when all of them had been read, unless they are stored already;
    /// `true` if it wrote. It may be dropped half way: the next call finds out what was written.
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

    /// Finds out whether the checkpoint is still ours although there is nothing to store. One that is
    /// gone is stored again with the next call of [`Self::save`].
    pub async fn verify_claim(&mut self) -> Result<(), ClaimError> {
        let was_unsure = std::mem::replace(&mut self.outcome_unknown, true);
        self.reload_and_verify().await?;
        self.outcome_unknown = was_unsure || self.version.is_none();
        Ok(())
    }

    /// Finds out whether the checkpoint is still ours. One that was deleted by hand is: it is made
    /// again from what we know, so that nothing is lost; two who do so meet at the creation.
    async fn reload_and_verify(&mut self) -> Result<(), ClaimError> {
        let Some(stored) = load(&*self.store).await.map_err(ClaimError::Store)? else {
            self.version = None;
            return Ok(());
        };
        let found = Checkpoint::from_data(&stored.data).map_err(ClaimError::Format)?;
        let is_ours =
            found.holder == self.checkpoint.holder && found.epoch == self.checkpoint.epoch;
        if !is_ours && !fault!(CheckpointHolderNotVerified) {
            return Err(ClaimError::TakenOver { holder: found.holder });
        }
        self.version = Some(stored.version);
        Ok(())
    }
}

async fn load(store: &dyn CheckpointStore) -> Result<Option<StoredCheckpoint>, StoreError> {
    timeout(STORE_TIMEOUT, store.load())
        .await
        .unwrap_or_else(|late| Err(StoreError::Unknown(late.into())))
}

async fn save(
    store: &dyn CheckpointStore,
    checkpoint: &Checkpoint,
    expected: Option<&ResourceVersion>,
) -> Result<ResourceVersion, StoreError> {
    let data = checkpoint.to_data();
    timeout(STORE_TIMEOUT, store.save(&data, expected))
        .await
        .unwrap_or_else(|late| Err(StoreError::Unknown(late.into())))
}
