//! A checkpoint in memory, with the versions and conflicts of a real one.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures::future::BoxFuture;
use stream_notifier::checkpoint::{
    Checkpoint, CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint,
};

/// A checkpoint.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    stored: Option<BTreeMap<String, String>>,
    version: u64,
    saves: Vec<Checkpoint>,
    faults: usize,
    lost_answers: usize,
}

impl MemoryStore {
    /// What is stored.
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let state = self.0.lock().unwrap();
        state.stored.as_ref().map(|data| Checkpoint::from_data(data).unwrap())
    }

    /// Everything that was stored, in order.
    pub fn saves(&self) -> Vec<Checkpoint> {
        self.0.lock().unwrap().saves.clone()
    }

    /// Writes as somebody else does.
    pub fn write(&self, checkpoint: &Checkpoint) {
        let mut state = self.0.lock().unwrap();
        state.stored = Some(checkpoint.to_data());
        state.version += 1;
    }

    /// So many of the next calls do nothing, and their outcome is unknown.
    pub fn fail_next(&self, calls: usize) {
        self.0.lock().unwrap().faults = calls;
    }

    /// So many of the next writes arrive, and their outcome is unknown all the same.
    pub fn lose_answers(&self, writes: usize) {
        self.0.lock().unwrap().lost_answers = writes;
    }

    /// Makes it unreadable, as a careless hand does.
    pub fn scribble(&self) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        if let Some(stored) = &mut state.stored {
            stored.insert("epoch".to_owned(), "scribble".to_owned());
        }
    }

    /// Deletes it as somebody else does.
    pub fn delete(&self) {
        self.0.lock().unwrap().stored = None;
    }
}

impl State {
    fn fault(&mut self) -> Result<(), StoreError> {
        if self.faults == 0 {
            return Ok(());
        }
        self.faults -= 1;
        Err(StoreError::Unknown("a fault".into()))
    }
}

impl CheckpointStore for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            state.fault()?;
            let version = ResourceVersion(state.version.to_string());
            Ok(state.stored.clone().map(|data| StoredCheckpoint { data, version }))
        })
    }

    fn save<'a>(
        &'a self,
        data: &'a BTreeMap<String, String>,
        expected: Option<&'a ResourceVersion>,
    ) -> BoxFuture<'a, Result<ResourceVersion, StoreError>> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            state.fault()?;
            let found = state.stored.is_some().then(|| ResourceVersion(state.version.to_string()));
            if found.as_ref() != expected {
                return Err(StoreError::Conflict);
            }
            state.version += 1;
            state.stored = Some(data.clone());
            state.saves.push(Checkpoint::from_data(data).unwrap());
            if state.lost_answers > 0 {
                state.lost_answers -= 1;
                return Err(StoreError::Unknown("the answer was lost".into()));
            }
            Ok(ResourceVersion(state.version.to_string()))
        })
    }
}
