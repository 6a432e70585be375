//! What this process has told of each notifier. The watch may be behind what was just written: a
//! condition that it does not show yet must not be forgotten, and a gap not be told twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::telemetry::{CountedEvent, HealthSnapshot};
use crate::worker::{NotifierId, Revision};

/// What was told last, by notifier.
#[derive(Debug, Default)]
pub struct Told(Mutex<BTreeMap<NotifierId, Last>>);

#[derive(Debug)]
struct Last {
    revision: Revision,
    conditions: Vec<Condition>,
    events: Happened,
}

/// How often what Events tell has happened to a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Records were lost before they were read.
    pub gaps: u64,
    /// An expression failed on a record, and its turn to be told had come.
    pub invalid: u64,
}

impl From<&HealthSnapshot> for Happened {
    fn from(picture: &HealthSnapshot) -> Self {
        let count = |what: &Option<CountedEvent>| what.as_ref().map_or(0, |what| what.count);
        Self { gaps: count(&picture.gap), invalid: count(&picture.invalid) }
    }
}

impl Told {
    /// The conditions that were written last of this resource, also of an earlier generation.
    pub fn conditions(&self, id: &NotifierId, revision: &Revision) -> Option<Vec<Condition>> {
        let told = self.lock();
        let last = told.get(id).filter(|last| last.revision.uid == revision.uid)?;
        Some(last.conditions.clone())
    }

    /// What Events have told of the worker of this revision.
    pub fn happened(&self, id: &NotifierId, revision: &Revision) -> Happened {
        let told = self.lock();
        let last = told.get(id).filter(|last| last.revision == *revision);
        last.map(|last| last.events).unwrap_or_default()
    }

    /// These conditions were written, and these events are told with them.
    pub fn wrote(
        &self,
        id: &NotifierId,
        revision: &Revision,
        conditions: Vec<Condition>,
        events: Happened,
    ) {
        self.lock().insert(id.clone(), Last { revision: revision.clone(), conditions, events });
    }

    /// The notifier is gone, or another process tells of it.
    pub fn forget(&self, id: &NotifierId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NotifierId, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> NotifierId {
        NotifierId { namespace: "dev".to_owned(), name: "notifier".to_owned() }
    }

    fn revision(uid: &str, generation: i64) -> Revision {
        Revision { uid: uid.to_owned(), generation }
    }

    #[test]
    fn what_was_told_is_known_of_each_worker() {
        let told = Told::default();
        let none = Happened::default();
        let some = Happened { gaps: 1, invalid: 2 };
        assert_eq!(told.happened(&id(), &revision("a", 1)), none);
        told.wrote(&id(), &revision("a", 1), vec![], some);
        assert_eq!(told.happened(&id(), &revision("a", 1)), some);
        assert_eq!(told.happened(&id(), &revision("a", 2)), none, "another worker counts anew");
        told.forget(&id());
        assert_eq!(told.happened(&id(), &revision("a", 1)), none);
    }

    #[test]
    fn conditions_are_those_of_the_same_resource() {
        let told = Told::default();
        told.wrote(&id(), &revision("a", 1), vec![], Happened::default());
        assert_eq!(told.conditions(&id(), &revision("a", 2)), Some(vec![]));
        assert_eq!(told.conditions(&id(), &revision("b", 2)), None);
    }
}
