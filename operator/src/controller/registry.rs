//! What this process knows of each notifier: its worker, its last report, and why it has no worker.
//!
//! The watch can lag behind a status write. The registry therefore remembers the last report, so that no
//! condition is lost and no data gap is reported twice.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use tokio_util::sync::CancellationToken;

use crate::api::Reason;
use crate::telemetry::{CountedEvent, HealthSnapshot, Phase};
use crate::worker::{NotifierId, Revision, RunWorker, WorkerHandle};

/// All notifiers of the process.
#[derive(Debug)]
pub struct NotifierRegistry {
    entries: Mutex<BTreeMap<NotifierId, Entry>>,
    /// Stops every worker.
    stop: CancellationToken,
}

/// One notifier. Worker and report have revisions of their own, because a report outlives a
/// generation. An error outlives a worker.
#[derive(Debug, Default)]
struct Entry {
    worker: Option<(Revision, WorkerHandle)>,
    report: Option<(Revision, LastReport)>,
    /// Why no worker can run.
    error: Option<&'static str>,
    /// Whether the status reported that another operator took the checkpoint of this worker over.
    has_reported_takeover: bool,
}

#[derive(Debug)]
struct LastReport {
    conditions: Vec<Condition>,
    events: EventCounts,
}

/// How many events of each type a worker has counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EventCounts {
    /// Data gaps.
    pub gaps: u64,
    /// Invalid records that were due for a report.
    pub invalid: u64,
}

impl From<&HealthSnapshot> for EventCounts {
    fn from(snapshot: &HealthSnapshot) -> Self {
        let count = |event: &Option<CountedEvent>| event.as_ref().map_or(0, |event| event.count);
        Self { gaps: count(&snapshot.gap), invalid: count(&snapshot.invalid) }
    }
}

impl NotifierRegistry {
    /// An empty registry. `stop` stops every worker that it will have.
    pub fn new(stop: CancellationToken) -> Self {
        Self { entries: Mutex::default(), stop }
    }

    /// Records that a notifier is stored, and why no worker can run for it, if none can.
    pub fn set_error(&self, id: &NotifierId, error: Option<&'static str>) {
        self.lock().entry(id.clone()).or_default().error = error;
    }

    /// The health of the worker of this revision, if there is one.
    pub fn health(&self, id: &NotifierId, revision: &Revision) -> Option<HealthSnapshot> {
        let entries = self.lock();
        let (_, worker) = entries.get(id)?.worker.as_ref().filter(|(of, _)| of == revision)?;
        Some(worker.health())
    }

    /// Starts a worker, and aborts one that still runs. `on_change` is called when its health changes.
    pub fn start(
        &self,
        id: &NotifierId,
        revision: Revision,
        run: RunWorker,
        on_change: impl Fn() + Send + Sync + 'static,
    ) {
        let worker = WorkerHandle::spawn(run, self.stop.child_token(), on_change);
        let mut entries = self.lock();
        let entry = entries.entry(id.clone()).or_default();
        entry.has_reported_takeover = false;
        if let Some((_, before)) = entry.worker.replace((revision, worker)) {
            before.abort();
        }
    }

    /// Stops a worker and waits until it has drained. The registry is not locked during the wait.
    pub async fn stop(&self, id: &NotifierId) {
        let worker = self.lock().get_mut(id).and_then(|entry| entry.worker.take());
        if let Some((_, worker)) = worker {
            worker.stop().await;
        }
    }

    /// Aborts the worker of an earlier resource of this name, whose checkpoint no longer exists.
    pub fn abort_earlier(&self, id: &NotifierId, uid: &str) {
        let mut entries = self.lock();
        let worker = entries
            .get_mut(id)
            .and_then(|entry| entry.worker.take_if(|(revision, _)| revision.uid != uid));
        if let Some((_, worker)) = worker {
            worker.abort();
        }
    }

    /// Waits for all workers, after they were stopped.
    pub async fn wait(&self) {
        let workers: Vec<_> =
            self.lock().values_mut().filter_map(|entry| entry.worker.take()).collect();
        for (_, worker) in workers {
            worker.join().await;
        }
    }

    /// Whether the status reported that another operator took the checkpoint of this worker over.
    pub fn has_reported_takeover(&self, id: &NotifierId) -> bool {
        self.lock().get(id).is_some_and(|entry| entry.has_reported_takeover)
    }

    /// Records that it did. From now on the other operator writes the status.
    pub fn mark_takeover_reported(&self, id: &NotifierId) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.has_reported_takeover = true;
        }
    }

    /// The conditions that were last written to this resource, also for an earlier generation.
    pub fn reported_conditions(
        &self,
        id: &NotifierId,
        revision: &Revision,
    ) -> Option<Vec<Condition>> {
        let entries = self.lock();
        let (of, report) = entries.get(id)?.report.as_ref()?;
        (of.uid == revision.uid).then(|| report.conditions.clone())
    }

    /// The events of the worker of this revision that were reported.
    pub fn reported_events(&self, id: &NotifierId, revision: &Revision) -> EventCounts {
        let entries = self.lock();
        let report = entries.get(id).and_then(|entry| entry.report.as_ref());
        report.filter(|(of, _)| of == revision).map(|(_, it)| it.events).unwrap_or_default()
    }

    /// Records a report: these conditions were written, and these events published.
    pub fn set_report(
        &self,
        id: &NotifierId,
        revision: &Revision,
        conditions: Vec<Condition>,
        events: EventCounts,
    ) {
        let report = Some((revision.clone(), LastReport { conditions, events }));
        self.lock().entry(id.clone()).or_default().report = report;
    }

    /// Forgets the last report, because another operator writes the status.
    pub fn clear_report(&self, id: &NotifierId) {
        if let Some(entry) = self.lock().get_mut(id) {
            entry.report = None;
        }
    }

    /// Forgets a notifier that is deleted, and aborts its worker: there is no checkpoint to write.
    pub fn forget(&self, id: &NotifierId) {
        let worker = self.lock().remove(id).and_then(|entry| entry.worker);
        if let Some((_, worker)) = worker {
            worker.abort();
        }
    }

    /// One line for each reason why a notifier does not read: `<namespace>/<name>: <reason>`.
    pub fn failures(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (NotifierId { namespace, name }, entry) in &*self.lock() {
            let snapshot = entry.worker.as_ref().map(|(_, worker)| worker.health());
            let reasons = entry.error.into_iter().chain(snapshot.iter().flat_map(not_reading));
            lines.extend(reasons.map(|reason| format!("{namespace}/{name}: {reason}")));
        }
        lines.sort();
        // Many shards can have the same problem.
        lines.dedup();
        lines
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<NotifierId, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a worker does not read; nothing if it does.
fn not_reading(snapshot: &HealthSnapshot) -> Vec<&'static str> {
    let mut reasons: Vec<_> =
        snapshot.problems.values().map(|problem| problem.reason.as_str()).collect();
    match snapshot.phase {
        Phase::HaltedOnGap => reasons.push(Reason::DataGap.as_str()),
        Phase::Starting if reasons.is_empty() => reasons.push("starting"),
        _ => {}
    }
    reasons
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

    /// A worker that runs until it is stopped.
    fn until_stopped() -> RunWorker {
        Box::new(|_, stop| Box::pin(async move { stop.cancelled().await }))
    }

    #[test]
    fn remembers_reported_events_of_the_same_revision() {
        let registry = NotifierRegistry::new(CancellationToken::new());
        let (none, some) = (EventCounts::default(), EventCounts { gaps: 1, invalid: 2 });
        assert_eq!(registry.reported_events(&id(), &revision("a", 1)), none);
        registry.set_report(&id(), &revision("a", 1), vec![], some);
        assert_eq!(registry.reported_events(&id(), &revision("a", 1)), some);
        assert_eq!(registry.reported_events(&id(), &revision("a", 2)), none, "another worker");
        registry.clear_report(&id());
        assert_eq!(registry.reported_events(&id(), &revision("a", 1)), none);
    }

    #[test]
    fn remembers_reported_conditions_of_the_same_resource() {
        let registry = NotifierRegistry::new(CancellationToken::new());
        registry.set_report(&id(), &revision("a", 1), vec![], EventCounts::default());
        assert_eq!(registry.reported_conditions(&id(), &revision("a", 2)), Some(vec![]));
        assert_eq!(registry.reported_conditions(&id(), &revision("b", 2)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn aborts_the_worker_of_an_earlier_resource_of_the_same_name() {
        let registry = NotifierRegistry::new(CancellationToken::new());
        registry.start(&id(), revision("a", 1), until_stopped(), || {});
        registry.abort_earlier(&id(), "a");
        assert!(registry.health(&id(), &revision("a", 1)).is_some());
        assert!(registry.health(&id(), &revision("a", 2)).is_none(), "another generation");
        registry.abort_earlier(&id(), "b");
        assert!(registry.health(&id(), &revision("a", 1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn stops_every_worker_with_the_process() {
        let stop = CancellationToken::new();
        let registry = NotifierRegistry::new(stop.clone());
        registry.start(&id(), revision("a", 1), until_stopped(), || {});
        stop.cancel();
        registry.wait().await;
        assert!(registry.health(&id(), &revision("a", 1)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn forgets_the_reported_takeover_of_an_earlier_worker() {
        let registry = NotifierRegistry::new(CancellationToken::new());
        registry.start(&id(), revision("a", 1), until_stopped(), || {});
        registry.mark_takeover_reported(&id());
        assert!(registry.has_reported_takeover(&id()));
        registry.start(&id(), revision("a", 2), until_stopped(), || {});
        assert!(!registry.has_reported_takeover(&id()));
        registry.stop(&id()).await;
    }
}
