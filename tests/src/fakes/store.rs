//! Checkpoint store in memory, with the versions and conflicts of a real one.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures::future::BoxFuture;
use stream_notifier::checkpoint::{
    Checkpoint, CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint,
};

#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    stored: Option<BTreeMap<String, String>>,
    version: u64,
    saves: Vec<Checkpoint>,
    failures: usize,
    lost_responses: usize,
}

impl MemoryStore {
    pub fn checkpoint(&self) -> Option<Checkpoint> {
        let state = self.0.lock().unwrap();
        state.stored.as_ref().map(|data| Checkpoint::from_data(data).unwrap())
    }

    /// All checkpoints that workers have stored, in order.
    pub fn saves(&self) -> Vec<Checkpoint> {
        self.0.lock().unwrap().saves.clone()
    }

    /// Writes as someone else.
    pub fn write(&self, checkpoint: &Checkpoint) {
        let mut state = self.0.lock().unwrap();
        state.stored = Some(checkpoint.to_data());
        state.version += 1;
    }

    /// Fails this number of requests without an effect and with an unknown outcome.
    pub fn fail_next(&self, calls: usize) {
        self.0.lock().unwrap().failures = calls;
    }

    /// Stores this number of writes but reports an unknown outcome.
    pub fn lose_responses(&self, writes: usize) {
        self.0.lock().unwrap().lost_responses = writes;
    }

    /// Makes the stored checkpoint invalid, as a wrong edit does.
    pub fn corrupt(&self) {
        let mut state = self.0.lock().unwrap();
        state.version += 1;
        if let Some(stored) = &mut state.stored {
            stored.insert("epoch".to_owned(), "invalid".to_owned());
        }
    }

    /// Deletes the checkpoint as someone else.
    pub fn delete(&self) {
        self.0.lock().unwrap().stored = None;
    }
}

impl State {
    fn take_failure(&mut self) -> Result<(), StoreError> {
        if self.failures == 0 {
            return Ok(());
        }
        self.failures -= 1;
        Err(StoreError::Unknown("requested by the test".into()))
    }
}

impl CheckpointStore for MemoryStore {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            state.take_failure()?;
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
            state.take_failure()?;
            let found = state.stored.is_some().then(|| ResourceVersion(state.version.to_string()));
            if found.as_ref() != expected {
                return Err(StoreError::Conflict);
            }
            state.version += 1;
            state.stored = Some(data.clone());
            state.saves.push(Checkpoint::from_data(data).unwrap());
            if state.lost_responses > 0 {
                state.lost_responses -= 1;
                return Err(StoreError::Unknown("the response was lost".into()));
            }
            Ok(ResourceVersion(state.version.to_string()))
        })
    }
}
