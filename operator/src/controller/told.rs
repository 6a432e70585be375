//! What this process has told of each notifier. The watch may be behind what was just written: a
//! condition that it does not show yet must not be forgotten, and a gap not be told twice.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::telemetry::Gap;
use crate::worker::{NotifierId, Revision};

/// What was told last, by notifier.
#[derive(Debug, Default)]
pub struct Told(Mutex<HashMap<NotifierId, Last>>);

#[derive(Debug)]
struct Last {
    revision: Revision,
    conditions: Vec<Condition>,
    /// How many gaps of this revision's worker.
    gaps: u64,
}

impl Told {
    /// The conditions that were written last of this resource, also of an earlier generation.
    pub fn conditions(&self, id: &NotifierId, revision: &Revision) -> Option<Vec<Condition>> {
        let told = self.lock();
        let last = told.get(id).filter(|last| last.revision.uid == revision.uid)?;
        Some(last.conditions.clone())
    }

    /// Whether a gap was told already.
    pub fn has(&self, id: &NotifierId, revision: &Revision, gap: &Gap) -> bool {
        self.lock().get(id).is_some_and(|last| last.revision == *revision && last.gaps == gap.count)
    }

    /// These conditions were written, and this gap is among what they tell.
    pub fn wrote(
        &self,
        id: &NotifierId,
        revision: &Revision,
        conditions: Vec<Condition>,
        gap: Option<&Gap>,
    ) {
        let gaps = gap.map_or(0, |gap| gap.count);
        self.lock().insert(id.clone(), Last { revision: revision.clone(), conditions, gaps });
    }

    /// The notifier is gone, or another process tells of it.
    pub fn forget(&self, id: &NotifierId) {
        self.lock().remove(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NotifierId, Last>> {
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

    fn gap(count: u64) -> Gap {
        Gap { count, message: String::new() }
    }

    #[test]
    fn each_gap_of_each_worker_is_told_once() {
        let told = Told::default();
        assert!(!told.has(&id(), &revision("a", 1), &gap(1)));
        told.wrote(&id(), &revision("a", 1), vec![], Some(&gap(1)));
        assert!(told.has(&id(), &revision("a", 1), &gap(1)));
        assert!(!told.has(&id(), &revision("a", 1), &gap(2)), "one more");
        assert!(!told.has(&id(), &revision("a", 2), &gap(1)), "another worker counts anew");
        told.forget(&id());
        assert!(!told.has(&id(), &revision("a", 1), &gap(1)));
    }

    #[test]
    fn conditions_are_those_of_the_same_resource() {
        let told = Told::default();
        told.wrote(&id(), &revision("a", 1), vec![], None);
        assert_eq!(told.conditions(&id(), &revision("a", 2)), Some(vec![]));
        assert_eq!(told.conditions(&id(), &revision("b", 2)), None);
    }
}
