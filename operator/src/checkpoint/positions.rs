//! How far every shard of the streams that are read is settled: what the checkpoint is made from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::shard_progress::ShardProgress;
use crate::model::{Position, ShardId, ShardPositions, StreamLabel, UnixSeconds};

/// Every shard that has an entry in the checkpoint.
#[derive(Debug)]
pub struct Positions {
    shards: Mutex<BTreeMap<ShardId, ShardState>>,
    unread: Mutex<UnreadSince>,
    moved: Arc<Notify>,
}

/// What was not read, beside that of shards that have an entry.
#[derive(Debug)]
struct UnreadSince {
    /// What was begun after the newest listing began.
    listed_at: UnixSeconds,
    /// Since when a shard that has no entry yet waits to be read.
    waits_since: Option<UnixSeconds>,
}

#[derive(Debug)]
enum ShardState {
    /// A reader is at it.
    Active(Arc<ShardProgress>),
    /// Nobody reads it: it is finished, or waits for its parent. And when it was last read.
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

    /// Whether its position tells by itself how much was lost since: once the shard has answered.
    fn is_exact(&self) -> bool {
        match (self.position(), self) {
            (Position::Finished, _) => true,
            (Position::After(_), Self::Active(progress)) => progress.has_read_page(),
            _ => false,
        }
    }
}

impl Positions {
    /// What a checkpoint remembers.
    pub fn new(shards: ShardPositions, read_at: UnixSeconds) -> Self {
        let rest = |(id, position)| (id, ShardState::Idle(position, read_at));
        let shards = Mutex::new(shards.into_iter().map(rest).collect());
        let unread = Mutex::new(UnreadSince { listed_at: read_at, waits_since: None });
        Self { shards, unread, moved: Arc::default() }
    }

    /// Every shard's position.
    pub fn all(&self) -> ShardPositions {
        self.lock().iter().map(|(id, state)| (id.clone(), state.position())).collect()
    }

    /// Every position in one stream.
    pub fn of_stream(&self, stream: &StreamLabel) -> ShardPositions {
        let shards = self.lock();
        let of_stream = shards.iter().filter(|(id, _)| id.stream == *stream);
        of_stream.map(|(id, state)| (id.clone(), state.position())).collect()
    }

    /// When every shard that has no number yet, or has not answered yet, had last been read; at the
    /// latest when all was listed last.
    pub fn read_at(&self) -> UnixSeconds {
        let (listed_at, waits_since) = {
            let unread = self.unread();
            (unread.listed_at, unread.waits_since)
        };
        let shards = self.lock();
        let inexact = shards.values().filter(|state| !state.is_exact());
        inexact.map(ShardState::read_at).chain(waits_since).fold(listed_at, UnixSeconds::min)
    }

    /// Up to when changes are read in the shard that is furthest behind, of those that are read or wait
    /// without an entry; `None` if there is none.
    pub fn read_through(&self) -> Option<UnixSeconds> {
        let waits_since = self.unread().waits_since;
        let shards = self.lock();
        let read = shards.values().filter_map(|state| match state {
            ShardState::Active(progress) => Some(progress.read_through()),
            ShardState::Idle(..) => None,
        });
        read.chain(waits_since).min()
    }

    /// Notes since when a shard that has no entry yet waits to be read, if one does.
    pub fn set_waits_since(&self, waits_since: Option<UnixSeconds>) {
        self.unread().waits_since = waits_since;
    }

    /// Notes when the newest listing began: no later shard is known.
    pub fn record_listing(&self, at: UnixSeconds) {
        self.unread().listed_at = at;
    }

    /// Waits until a position has changed since this last returned.
    pub async fn changed(&self) {
        self.moved.notified().await;
    }

    /// Positions are to be looked at again, although none changed.
    pub fn mark_dirty(&self) {
        self.moved.notify_one();
    }

    /// Whether a reader is at a shard.
    pub fn is_active(&self, id: &ShardId) -> bool {
        matches!(self.lock().get(id), Some(ShardState::Active(_)))
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    /// Whether a shard has an entry.
    pub fn has(&self, id: &ShardId) -> bool {
        self.lock().contains_key(id)
    }

    /// Whether a shard's entry says that it is finished.
    pub fn is_finished(&self, id: &ShardId) -> bool {
        matches!(self.lock().get(id), Some(ShardState::Idle(Position::Finished, _)))
    }

    /// A reader begins at a shard, which was last read at `read_at` unless its entry knows better.
    pub fn open(
        &self,
        id: ShardId,
        position: Position,
        read_at: UnixSeconds,
    ) -> Arc<ShardProgress> {
        let mut shards = self.lock();
        let read_at = shards.get(&id).map_or(read_at, ShardState::read_at);
        let progress = Arc::new(ShardProgress::new(position, read_at, self.moved.clone()));
        shards.insert(id, ShardState::Active(progress.clone()));
        self.moved.notify_one();
        progress
    }

    /// A shard's reader is at its end, and everything is settled.
    pub fn finish(&self, id: &ShardId) {
        // When it was read says no more.
        let rest = ShardState::Idle(Position::Finished, UnixSeconds(i64::MAX));
        self.lock().insert(id.clone(), rest);
        self.moved.notify_one();
    }

    /// A shard need not be remembered any more.
    pub fn forget(&self, id: &ShardId) {
        self.lock().remove(id);
        self.moved.notify_one();
    }

    fn unread(&self) -> std::sync::MutexGuard<'_, UnreadSince> {
        self.unread.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, ShardState>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
