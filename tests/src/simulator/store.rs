//! The checkpoint's store: versions and conflicts, answers that get lost, others who write, wrong
//! rights. Every save is looked at here: it must be the holder's, and never ahead of delivery.

use std::collections::BTreeMap;
use std::future::pending;

use futures::future::BoxFuture;
use stream_notifier::checkpoint::{CheckpointStore, ResourceVersion, StoreError, StoredCheckpoint};

use super::boundary::Outside;
use super::faults::{StoreFault, now};
use super::worker_process::Call;
use super::world::State;
use crate::streams_model::Model;

/// What is stored.
#[derive(Debug, Default)]
pub struct Store {
    /// The content, once there is one.
    pub data: Option<BTreeMap<String, String>>,
    version: u64,
}

impl Store {
    /// Somebody annotates it.
    pub fn touch(&mut self) {
        self.version += 1;
    }
}

/// What becomes of a single call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    /// Nothing is done, and nobody says so.
    Nothing,
    /// It is done, and nobody says so.
    Unanswered,
    /// Nothing is done, and there is no answer.
    Hangs,
    /// It is done, and there is no answer.
    DoneAndHangs,
    /// Somebody else wrote just before.
    Touched,
    Denied,
}

/// An answer, or none ever.
type Answered<T> = Option<Result<T, StoreError>>;

impl State {
    fn store_fate(&mut self, model: &Model) -> Fate {
        match now(self.faults.store, model.now()) {
            Some(StoreFault::Unknown) => return Fate::Nothing,
            Some(StoreFault::AccessDenied) => return Fate::Denied,
            None => {}
        }
        if !self.chance(self.faults.chances.store) {
            return Fate::Done;
        }
        let fates =
            [Fate::Nothing, Fate::Unanswered, Fate::Hangs, Fate::DoneAndHangs, Fate::Touched];
        fates[self.rng.usize(..fates.len())]
    }

    fn load(&mut self, model: &Model) -> Answered<Option<StoredCheckpoint>> {
        let fate = self.store_fate(model);
        match fate {
            Fate::Hangs | Fate::DoneAndHangs => {
                self.counts.add("load hangs");
                return None;
            }
            Fate::Nothing | Fate::Unanswered => {
                self.counts.add("load fails");
                return Some(Err(unknown()));
            }
            Fate::Denied => return Some(Err(self.denied())),
            Fate::Done | Fate::Touched => {}
        }
        let version = ResourceVersion(self.store.version.to_string());
        Some(Ok(self.store.data.clone().map(|data| StoredCheckpoint { data, version })))
    }

    fn save(
        &mut self,
        model: &Model,
        life: usize,
        data: &BTreeMap<String, String>,
        expected: Option<&ResourceVersion>,
    ) -> Answered<ResourceVersion> {
        let fate = self.store_fate(model);
        match fate {
            Fate::Nothing => {
                self.counts.add("save lost");
                return Some(Err(unknown()));
            }
            Fate::Hangs => {
                self.counts.add("save lost, no answer");
                return None;
            }
            Fate::Denied => return Some(Err(self.denied())),
            Fate::Touched => {
                self.counts.add("checkpoint touched by somebody else");
                self.store.touch();
            }
            Fate::Done | Fate::Unanswered | Fate::DoneAndHangs => {}
        }
        let found =
            self.store.data.is_some().then(|| ResourceVersion(self.store.version.to_string()));
        if found.as_ref() != expected {
            self.counts.add("save in conflict");
            self.note(model, || format!("worker-{life}: save in conflict"));
            return Some(Err(StoreError::Conflict));
        }
        self.check_save(model, life, data);
        self.counts.add("save");
        self.store.data = Some(data.clone());
        self.store.version += 1;
        match fate {
            Fate::Unanswered => {
                self.counts.add("saved, answer lost");
                Some(Err(unknown()))
            }
            Fate::DoneAndHangs => {
                self.counts.add("saved, no answer");
                None
            }
            _ => Some(Ok(ResourceVersion(self.store.version.to_string()))),
        }
    }

    fn denied(&mut self) -> StoreError {
        self.counts.add("store denied");
        StoreError::AccessDenied("as the plan has it".into())
    }
}

fn unknown() -> StoreError {
    StoreError::Unknown("as chance has it".into())
}

impl CheckpointStore for Outside {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>> {
        Box::pin(async move {
            let loaded = self.ask(Call::Load, |model, state| state.load(model)).await;
            or_never(loaded).await
        })
    }

    fn save<'a>(
        &'a self,
        data: &'a BTreeMap<String, String>,
        expected: Option<&'a ResourceVersion>,
    ) -> BoxFuture<'a, Result<ResourceVersion, StoreError>> {
        Box::pin(async move {
            let (life, data, expected) = (self.life.number, data.clone(), expected.cloned());
            let act = move |model: &Model, state: &mut State| {
                state.save(model, life, &data, expected.as_ref())
            };
            or_never(self.send(Call::Save, act).await).await
        })
    }
}

async fn or_never<T>(answered: Answered<T>) -> Result<T, StoreError> {
    match answered {
        Some(answer) => answer,
        None => pending().await,
    }
}
