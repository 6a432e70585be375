//! One worker per notifier, each in a task of its own: none can hold up another. A worker runs for
//! one generation of one resource; the next one begins once it has stopped. One that panics begins
//! anew; one that lost its claim stays where it is until its resource changes.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::Reason;
use crate::telemetry::{Component, Health, HealthSnapshot, Phase, Problem};

/// How long to wait before a worker that panicked begins anew.
const PANIC_RESTART_DELAY: Duration = Duration::from_secs(10);

/// Which notifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifierId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Which version of a notifier: another resource of its name has another uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// The resource's uid.
    pub uid: String,
    /// The spec's generation.
    pub generation: i64,
}

/// All workers of the process.
#[derive(Debug)]
pub struct Supervisor {
    workers: Mutex<HashMap<NotifierId, Worker>>,
    /// Stops all of them.
    stop: CancellationToken,
}

#[derive(Debug)]
struct Worker {
    revision: Revision,
    stop: CancellationToken,
    task: JoinHandle<()>,
    health: watch::Receiver<HealthSnapshot>,
    told: bool,
}

impl Supervisor {
    /// No worker yet; `stop` stops all there will be.
    pub fn new(stop: CancellationToken) -> Self {
        Self { workers: Mutex::default(), stop }
    }

    /// The health of the worker of this revision, if there is one.
    pub fn health(&self, id: &NotifierId, revision: &Revision) -> Option<HealthSnapshot> {
        let workers = self.lock();
        let worker = workers.get(id).filter(|worker| worker.revision == *revision)?;
        Some(worker.health.borrow().clone())
    }

    /// Whether it was told that this notifier's claim is lost.
    pub fn has_told_lost_claim(&self, id: &NotifierId) -> bool {
        self.lock().get(id).is_some_and(|worker| worker.told)
    }

    /// It was told: from now on the notifier's status is the other holder's.
    pub fn told_lost_claim(&self, id: &NotifierId) {
        if let Some(worker) = self.lock().get_mut(id) {
            worker.told = true;
        }
    }

    /// Starts a worker. `work` gets its health and the token that stops it; `changed` is called
    /// whenever its health is another.
    pub fn start<F>(
        &self,
        id: NotifierId,
        revision: Revision,
        work: impl Fn(Arc<Health>, CancellationToken) -> F + Send + Sync + 'static,
        changed: impl Fn() + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (health, watched) = Health::new();
        let health = Arc::new(health);
        let stop = self.stop.child_token();
        let mut changes = watched.clone();
        let told = async move {
            while changes.changed().await.is_ok() {
                changed();
            }
        };
        let (given, stops) = (health.clone(), stop.clone());
        let worked = async move {
            // Making it may panic too.
            let made = async || work(given.clone(), stops.clone()).await;
            while catch_panic(&given, made()).await.is_err()
                && stops.run_until_cancelled(sleep(PANIC_RESTART_DELAY)).await.is_some()
            {
            }
            // With the last sender gone, so is the listener.
            drop(given);
        };
        drop(health);
        let task = tokio::spawn(async move {
            tokio::join!(worked, told);
        });
        let worker = Worker { revision, stop, task, health: watched, told: false };
        if let Some(before) = self.lock().insert(id, worker) {
            before.task.abort();
        }
    }

    /// Stops a worker and waits until it has finished what is under way.
    pub async fn stop(&self, id: &NotifierId) {
        let worker = self.lock().remove(id);
        if let Some(Worker { stop, task, .. }) = worker {
            stop.cancel();
            // It is gone either way.
            let _ = task.await;
        }
    }

    /// Ends the worker of a resource that no longer exists: there is nothing to remember.
    pub fn abort(&self, id: &NotifierId) {
        if let Some(worker) = self.lock().remove(id) {
            worker.task.abort();
        }
    }

    /// Ends the worker of an earlier resource of this name.
    pub fn abort_other(&self, id: &NotifierId, uid: &str) {
        let mut workers = self.lock();
        if workers.get(id).is_some_and(|worker| worker.revision.uid != uid)
            && let Some(worker) = workers.remove(id)
        {
            worker.task.abort();
        }
    }

    /// Waits for all workers, after they were told to stop.
    pub async fn wait(&self) {
        let workers: Vec<_> = self.lock().drain().map(|(_, worker)| worker).collect();
        for worker in workers {
            let _ = worker.task.await;
        }
    }

    /// Every notifier that has a worker, with its resource's uid.
    pub fn ids(&self) -> Vec<(NotifierId, String)> {
        let uid = |worker: &Worker| worker.revision.uid.clone();
        self.lock().iter().map(|(id, worker)| (id.clone(), uid(worker))).collect()
    }

    /// What keeps each notifier from working, a line each.
    pub fn troubles(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (NotifierId { namespace, name }, worker) in &*self.lock() {
            let picture = worker.health.borrow();
            let reasons = picture.problems.values().map(|trouble| trouble.reason.as_str());
            lines.extend(reasons.map(|reason| format!("{namespace}/{name}: {reason}")));
            if picture.phase == Phase::HaltedOnGap {
                lines.push(format!("{namespace}/{name}: {}", Reason::DataGap.as_str()));
            }
            if picture.phase == Phase::Starting && picture.problems.is_empty() {
                lines.push(format!("{namespace}/{name}: starting"));
            }
        }
        lines.sort();
        lines
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NotifierId, Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Works, and tells if the work panicked: a fault of ours.
async fn catch_panic(health: &Health, work: impl Future<Output = ()>) -> Result<(), ()> {
    let worked = AssertUnwindSafe(work).catch_unwind().await;
    worked.map_err(|_| {
        health.starting();
        health.set_problem(Component::Worker, panicked_problem());
    })
}

/// Problem of a worker task that panicked.
pub fn panicked_problem() -> Problem {
    let message = "a worker task panicked: bug in the operator; report it with the operator's log, the worker restarts from the checkpoint";
    Problem::new(Reason::WorkerFailed, message.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn id() -> NotifierId {
        NotifierId { namespace: "dev".to_owned(), name: "notifier".to_owned() }
    }

    fn revision(uid: &str, generation: i64) -> Revision {
        Revision { uid: uid.to_owned(), generation }
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_panics_says_so_and_begins_anew() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let work = move |health: Arc<Health>, stop: CancellationToken| {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            async move {
                health.starting();
                health.started();
                assert!(run > 0, "the first one fails");
                stop.cancelled().await;
            }
        };
        supervisor.start(id(), revision("a", 1), work, || {});
        sleep(Duration::from_secs(1)).await;
        let picture = supervisor.health(&id(), &revision("a", 1)).unwrap();
        assert_eq!(picture.phase, Phase::Starting);
        assert_eq!(picture.problems[&Component::Worker].reason, Reason::WorkerFailed);
        sleep(PANIC_RESTART_DELAY).await;
        let picture = supervisor.health(&id(), &revision("a", 1)).unwrap();
        assert_eq!((picture.phase, picture.problems.len()), (Phase::Reading, 0));
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        supervisor.stop(&id()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_worker_that_panics_each_time_can_be_stopped() {
        for is_begun in [false, true] {
            let supervisor = Supervisor::new(CancellationToken::new());
            let runs = Arc::new(AtomicUsize::new(0));
            let counted = runs.clone();
            let work = move |_: Arc<Health>, _: CancellationToken| {
                let run = counted.fetch_add(1, Ordering::Relaxed);
                assert!(is_begun || run > 9, "it is not even made");
                async move { assert!(run > 9, "it always fails") }
            };
            supervisor.start(id(), revision("a", 1), work, || {});
            sleep(PANIC_RESTART_DELAY * 3 / 2).await;
            let picture = supervisor.health(&id(), &revision("a", 1)).unwrap();
            assert_eq!(picture.problems[&Component::Worker].reason, Reason::WorkerFailed);
            supervisor.stop(&id()).await;
            assert_eq!(runs.load(Ordering::Relaxed), 2, "begun, and once more");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_resource_of_the_same_name_is_another() {
        let supervisor = Supervisor::new(CancellationToken::new());
        let work = |_: Arc<Health>, stop: CancellationToken| async move { stop.cancelled().await };
        supervisor.start(id(), revision("a", 1), work, || {});
        supervisor.abort_other(&id(), "a");
        assert!(supervisor.health(&id(), &revision("a", 1)).is_some());
        assert!(supervisor.health(&id(), &revision("a", 2)).is_none(), "another generation");
        supervisor.abort_other(&id(), "b");
        assert_eq!(supervisor.ids(), []);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_of_the_process_stops_every_worker() {
        let stop = CancellationToken::new();
        let supervisor = Supervisor::new(stop.clone());
        let work = |_: Arc<Health>, stop: CancellationToken| async move { stop.cancelled().await };
        supervisor.start(id(), revision("a", 1), work, || {});
        stop.cancel();
        supervisor.wait().await;
        assert_eq!(supervisor.ids(), []);
    }
}
