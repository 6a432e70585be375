//! How far every shard of a stream is settled: what the checkpoint is made from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::progress::Progress;
use crate::record::{Position, ShardId};

/// Every shard that has an entry in the checkpoint.
#[derive(Debug)]
pub struct Positions {
    shards: Mutex<BTreeMap<ShardId, State>>,
    moved: Arc<Notify>,
}

#[derive(Debug)]
enum State {
    /// A reader is at it.
    Read(Arc<Progress>),
    /// Nobody reads it: it is finished, or waits for its parent.
    Rest(Position),
}

impl Positions {
    /// What a checkpoint remembers.
    pub fn new(shards: BTreeMap<ShardId, Position>) -> Self {
        let shards = shards.into_iter().map(|(id, position)| (id, State::Rest(position))).collect();
        Self { shards: Mutex::new(shards), moved: Arc::default() }
    }

    /// Every shard's position.
    pub fn all(&self) -> BTreeMap<ShardId, Position> {
        let position = |state: &State| match state {
            State::Read(progress) => progress.position(),
            State::Rest(position) => position.clone(),
        };
        self.lock().iter().map(|(id, state)| (id.clone(), position(state))).collect()
    }

    /// Waits until a position has changed since this last returned.
    pub async fn moved(&self) {
        self.moved.notified().await;
    }

    /// Positions are to be looked at again, although none changed.
    pub fn look_again(&self) {
        self.moved.notify_one();
    }

    /// Whether a reader is at a shard.
    pub fn is_read(&self, id: &ShardId) -> bool {
        matches!(self.lock().get(id), Some(State::Read(_)))
    }

    /// Whether a shard has an entry.
    pub fn has(&self, id: &ShardId) -> bool {
        self.lock().contains_key(id)
    }

    /// Whether a shard's entry says that it is finished.
    pub fn is_finished(&self, id: &ShardId) -> bool {
        matches!(self.lock().get(id), Some(State::Rest(Position::Finished)))
    }

    /// A reader begins at a shard.
    pub fn open(&self, id: ShardId, position: Position) -> Arc<Progress> {
        let progress = Arc::new(Progress::new(position, self.moved.clone()));
        self.lock().insert(id, State::Read(progress.clone()));
        self.moved.notify_one();
        progress
    }

    /// A shard's reader is at its end, and everything is settled.
    pub fn finish(&self, id: &ShardId) {
        self.lock().insert(id.clone(), State::Rest(Position::Finished));
        self.moved.notify_one();
    }

    /// A shard need not be remembered any more.
    pub fn forget(&self, id: &ShardId) {
        self.lock().remove(id);
        self.moved.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<ShardId, State>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
