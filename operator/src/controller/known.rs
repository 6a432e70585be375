//! The notifiers that are stored, and why no worker can be made for some of them.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::worker::NotifierId;

/// Why no worker can be made, if that is so, by notifier.
#[derive(Debug, Default)]
pub struct Known(Mutex<BTreeMap<NotifierId, Option<&'static str>>>);

impl Known {
    /// A notifier is stored, and no worker can be made for it, for this reason; or one can.
    pub fn note(&self, id: &NotifierId, why: Option<&'static str>) {
        self.lock().insert(id.clone(), why);
    }

    /// A notifier is gone.
    pub fn forget(&self, id: &NotifierId) {
        self.lock().remove(id);
    }

    /// Every notifier that is not known to be gone.
    pub fn ids(&self) -> Vec<NotifierId> {
        self.lock().keys().cloned().collect()
    }

    /// Every notifier that no worker can be made for, with the reason, a line each.
    pub fn unworkable(&self) -> Vec<String> {
        let known = self.lock();
        let lines = known.iter().filter_map(|(id, why)| {
            let NotifierId { namespace, name } = id;
            Some(format!("{namespace}/{name}: {}", (*why)?))
        });
        lines.collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<NotifierId, Option<&'static str>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
