//! Simulated checkpoint store: resource versions and conflicts, lost responses, other writers and
//! denied access. It checks every write.

use std::collections::BTreeMap;
use std::future::pending;

use futures::future::BoxFuture;
use stream_notifier::checkpoint::{CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint};

use super::boundary::Boundary;
use super::faults::{StoreFault, active};
use super::worker_process::Call;
use super::world::State;
use crate::streams_model::Model;

#[derive(Debug, Default)]
pub struct Store {
    /// `None` before the first write.
    pub data: Option<BTreeMap<String, String>>,
    version: u64,
}

impl Store {
    /// Someone else changes an annotation.
    pub fn write_annotation(&mut self) {
        self.version += 1;
    }
}

/// How the store treats a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Behavior {
    Done,
    /// No effect, and an error.
    NotDone,
    /// The effect, and an error.
    DoneWithoutResult,
    /// No effect, and no response.
    NotDoneTimesOut,
    /// The effect, and no response.
    DoneTimesOut,
    /// Someone else wrote just before.
    WrittenBefore,
    Denied,
}

/// A response; `None` if there is never one.
type MaybeResponse<T> = Option<Result<T, StoreError>>;

impl State {
    fn draw_store_behavior(&mut self, model: &Model) -> Behavior {
        match active(self.faults.store, model.now()) {
            Some(StoreFault::Unknown) => return Behavior::NotDone,
            Some(StoreFault::AccessDenied) => return Behavior::Denied,
            None => {}
        }
        if !self.chance(self.faults.chances.store) {
            return Behavior::Done;
        }
        let behaviors = [
            Behavior::NotDone,
            Behavior::DoneWithoutResult,
            Behavior::NotDoneTimesOut,
            Behavior::DoneTimesOut,
            Behavior::WrittenBefore,
        ];
        behaviors[self.rng.usize(..behaviors.len())]
    }

    fn load(&mut self, model: &Model) -> MaybeResponse<Option<StoredCheckpoint>> {
        let behavior = self.draw_store_behavior(model);
        match behavior {
            Behavior::NotDoneTimesOut | Behavior::DoneTimesOut => {
                self.counts.add("load timed out");
                return None;
            }
            Behavior::NotDone | Behavior::DoneWithoutResult => {
                self.counts.add("load failed");
                return Some(Err(unknown()));
            }
            Behavior::Denied => return Some(Err(self.denied())),
            Behavior::Done | Behavior::WrittenBefore => {}
        }
        let version = ResourceVersion(self.store.version.to_string());
        Some(Ok(self.store.data.clone().map(|data| StoredCheckpoint { data, version })))
    }

    fn save(
        &mut self,
        model: &Model,
        process: usize,
        data: &BTreeMap<String, String>,
        expected: Option<&ResourceVersion>,
    ) -> MaybeResponse<ResourceVersion> {
        let behavior = self.draw_store_behavior(model);
        match behavior {
            Behavior::NotDone => {
                self.counts.add("save lost");
                return Some(Err(unknown()));
            }
            Behavior::NotDoneTimesOut => {
                self.counts.add("save lost, no response");
                return None;
            }
            Behavior::Denied => return Some(Err(self.denied())),
            Behavior::WrittenBefore => {
                self.counts.add("checkpoint written by someone else");
                self.store.write_annotation();
            }
            Behavior::Done | Behavior::DoneWithoutResult | Behavior::DoneTimesOut => {}
        }
        let found =
            self.store.data.is_some().then(|| ResourceVersion(self.store.version.to_string()));
        if found.as_ref() != expected {
            self.counts.add("save in conflict");
            self.trace_line(model, || format!("worker-{process}: save in conflict"));
            return Some(Err(StoreError::Conflict));
        }
        self.check_save(model, process, data);
        self.counts.add("save");
        self.store.data = Some(data.clone());
        self.store.version += 1;
        match behavior {
            Behavior::DoneWithoutResult => {
                self.counts.add("save done, response lost");
                Some(Err(unknown()))
            }
            Behavior::DoneTimesOut => {
                self.counts.add("save done, no response");
                None
            }
            _ => Some(Ok(ResourceVersion(self.store.version.to_string()))),
        }
    }

    fn denied(&mut self) -> StoreError {
        self.counts.add("store: access denied");
        StoreError::AccessDenied("simulated".into())
    }
}

fn unknown() -> StoreError {
    StoreError::Unknown("simulated".into())
}

impl CheckpointStore for Boundary {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>> {
        Box::pin(async move {
            let loaded = self.read(Call::Load, |model, state| state.load(model)).await;
            or_never(loaded).await
        })
    }

    fn save<'a>(
        &'a self,
        data: &'a BTreeMap<String, String>,
        expected: Option<&'a ResourceVersion>,
    ) -> BoxFuture<'a, Result<ResourceVersion, StoreError>> {
        Box::pin(async move {
            let (process, data, expected) = (self.process.number, data.clone(), expected.cloned());
            let act = move |model: &Model, state: &mut State| {
                state.save(model, process, &data, expected.as_ref())
            };
            or_never(self.write(Call::Save, act).await).await
        })
    }
}

async fn or_never<T>(response: MaybeResponse<T>) -> Result<T, StoreError> {
    match response {
        Some(response) => response,
        None => pending().await,
    }
}
