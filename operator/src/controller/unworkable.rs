//! The notifiers that are stored and have no worker, because none can be made from what is stored.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::worker::NotifierId;

/// Why no worker can be made, by notifier.
#[derive(Debug, Default)]
pub struct Unworkable(Mutex<BTreeMap<NotifierId, &'static str>>);

impl Unworkable {
    /// No worker can be made for a notifier, for this reason; or one can.
    pub fn note(&self, id: &NotifierId, why: Option<&'static str>) {
        let mut unworkable = self.lock();
        match why {
            Some(why) => unworkable.insert(id.clone(), why),
            None => unworkable.remove(id),
        };
    }

    /// Every such notifier.
    pub fn ids(&self) -> Vec<NotifierId> {
        self.lock().keys().cloned().collect()
    }

    /// Every such notifier with the reason, a line each.
    pub fn lines(&self) -> Vec<String> {
        let line = |(id, why): (&NotifierId, &&str)| format!("{}/{}: {why}", id.namespace, id.name);
        self.lock().iter().map(line).collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NotifierId, &'static str>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
