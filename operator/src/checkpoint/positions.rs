//! The positions of all shards, from which the checkpoint is written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::shard_progress::ShardProgress;
use crate::model::{Position, ShardId, ShardPositions, StreamLabel, UnixSeconds};

/// All shards that have an entry in the checkpoint.
#[derive(Debug)]
pub struct Positions {
    shards: Mutex<BTreeMap<ShardId, ShardState>>,
    unread: Mutex<UnreadSince>,
    /// Notified when a position changes.
    changed: Arc<Notify>,
}

/// Times since which shards without an entry may have unread records.
#[derive(Debug)]
struct UnreadSince {
    /// The start of the latest listing. Shards created later are unknown.
    listed_at: UnixSeconds,
    /// The time since which a listed shard without an entry waits to be read.
    waits_since: Option<UnixSeconds>,
}

#[derive(Debug)]
enum ShardState {
    /// The shard is being read.
    Active(Arc<ShardProgress>),
    /// The shard is finished or waits for its parent; with the time when it was last read.
    Idle(Position, UnixSeconds),
}

impl ShardState {
    fn position(&self) -> Position {
        match self {
            Self::Active(progress) => progress.position(),
            Self::Idle(position, _) => position.clone(),
        }
    }

    fn read_at(&self) -> UnixSeconds {
        match self {
            Self::Active(progress) => progress.read_at(),
            Self::Idle(_, read_at) => *read_at,
        }
    }

    /// Whether the service reports by itself what is lost after this position. It does for a sequence
    /// number, once a page was read.
    fn is_exact(&self) -> bool {
        match (self.position(), self) {
            (Position::Finished, _) => true,
            (Position::After(_), Self::Active(progress)) => progress.has_read_page(),
            _ => false,
        }
    }
}

impl Positions {
    /// The positions of a checkpoint.
    pub fn new(shards: ShardPositions, read_at: UnixSeconds) -> Self {
        let idle = |(id, position)| (id, ShardState::Idle(position, read_at));
        let shards = Mutex::new(shards.into_iter().map(idle).collect());
        let unread = Mutex::new(UnreadSince { listed_at: read_at, waits_since: None });
        Self { shards, unread, changed: Arc::default() }
    }

    /// The position of every shard.
    pub fn all(&self) -> ShardPositions {
        self.lock().iter().map(|(id, state)| (id.clone(), state.position())).collect()
    }

    /// The positions of one stream.
    pub fn of_stream(&self, stream: &StreamLabel) -> ShardPositions {
        let shards = self.lock();
        let of_stream = shards.iter().filter(|(id, _)| id.stream == *stream);
        of_stream.map(|(id, state)| (id.clone(), state.position())).collect()
    }

    /// When every shard without a sequence number, or without a page yet, was last read. At the latest,
    /// the start of the latest listing.
    pub fn read_at(&self) -> UnixSeconds {
        let (listed_at, waits_since) = {
            let unread = self.unread();
            (unread.listed_at, unread.waits_since)
        };
        let shards = self.lock();
        let inexact = shards.values().filter(|state| !state.is_exact());
        inexact.map(ShardState::read_at).chain(waits_since).fold(listed_at, UnixSeconds::min)
    }

    /// Records up to this time are read in every shard that is being read or waits without an entry;
    /// `None` if there is no such shard.
    pub fn read_through(&self) -> Option<UnixSeconds> {
        let waits_since = self.unread().waits_since;
        let shards = self.lock();
        let read = shards.values().filter_map(|state| match state {
            ShardState::Active(progress) => Some(progress.read_through()),
            ShardState::Idle(..) => None,
        });
        read.chain(waits_since).min()
    }

    /// Sets the time since which a shard without an entry waits to be read, if one does.
    pub fn set_waits_since(&self, waits_since: Option<UnixSeconds>) {
        self.unread().waits_since = waits_since;
    }

    /// Records the start of the latest listing.
    pub fn record_listing(&self, at: UnixSeconds) {
        self.unread().listed_at = at;
    }

    /// Waits until a position has changed since the last return.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Makes the next [`Self::changed`] return although no position changed.
    pub fn mark_dirty(&self) {
        self.changed.notify_one();
    }

    /// Whether a shard is being read.
    pub fn is_active(&self, id: &ShardId) -> bool {
        matches!(self.lock().get(id), Some(ShardState::Active(_)))
    }

    /// The number of entries.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    /// Whether a shard has an entry.
    pub fn has(&self, id: &ShardId) -> bool {
        self.lock().contains_key(id)
    }

    /// Whether a shard is finished.
    pub fn is_finished(&self, id: &ShardId) -> bool {
        matches!(self.lock().get(id), Some(ShardState::Idle(Position::Finished, _)))
    }

    /// Starts reading a shard. `read_at` is when it was last read, unless its entry has that.
    pub fn open(
        &self,
        id: ShardId,
        position: Position,
        read_at: UnixSeconds,
    ) -> Arc<ShardProgress> {
        let mut shards = self.lock();
        let read_at = shards.get(&id).map_or(read_at, ShardState::read_at);
        let progress = Arc::new(ShardProgress::new(position, read_at, self.changed.clone()));
        shards.insert(id, ShardState::Active(progress.clone()));
        self.changed.notify_one();
        progress
    }

    /// Marks a shard as finished: it is read to its end, and every record is settled.
    pub fn finish(&self, id: &ShardId) {
        // The time no longer matters.
        let idle = ShardState::Idle(Position::Finished, UnixSeconds(i64::MAX));
        self.lock().insert(id.clone(), idle);
        self.changed.notify_one();
    }

    /// Removes the entry of a shard.
    pub fn forget(&self, id: &ShardId) {
        self.lock().remove(id);
        self.changed.notify_one();
    }

    fn unread(&self) -> std::sync::MutexGuard<'_, UnreadSince> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, ShardState>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
