//! One worker per notifier, each in a task of its own: none can hold up another. A worker runs for
//! one generation of its resource; a new one begins once the old one has stopped.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Health, Picture};

/// Which notifier; the uid tells a resource from a later one of the same name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifierId {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// All workers of the process.
#[derive(Debug, Default)]
pub struct Supervisor {
    workers: Mutex<HashMap<NotifierId, Worker>>,
}

#[derive(Debug)]
struct Worker {
    generation: i64,
    stop: CancellationToken,
    task: JoinHandle<()>,
    health: watch::Receiver<Picture>,
}

impl Supervisor {
    /// The health of the worker of this generation, if there is one.
    pub fn health(&self, id: &NotifierId, generation: i64) -> Option<Picture> {
        let workers = self.lock();
        let worker = workers.get(id).filter(|worker| worker.generation == generation)?;
        Some(worker.health.borrow().clone())
    }

    /// Starts a worker. `work` gets its health and the token that stops it; `changed` is called
    /// whenever its health is another.
    pub fn start<F>(
        &self,
        id: NotifierId,
        generation: i64,
        work: impl FnOnce(Arc<Health>, CancellationToken) -> F,
        changed: impl Fn() + Send + Sync + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let (health, watched) = Health::new();
        let health = Arc::new(health);
        let stop = CancellationToken::new();
        let work = work(health.clone(), stop.clone());
        let mut changes = watched.clone();
        let task = tokio::spawn(async move {
            let told = async {
                while changes.changed().await.is_ok() {
                    changed();
                }
            };
            tokio::join!(
                async {
                    work.await;
                    // With the last sender gone, so is the listener above.
                    drop(health);
                },
                told
            );
        });
        let worker = Worker { generation, stop, task, health: watched };
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

    /// Ends the workers of a resource that no longer exists, whatever its uid: there is nothing to
    /// remember.
    pub fn abort(&self, namespace: &str, name: &str) {
        self.abort_where(|id| id.namespace == namespace && id.name == name);
    }

    /// Ends the worker of an earlier resource of this name.
    pub fn abort_namesakes(&self, id: &NotifierId) {
        self.abort_where(|other| {
            (&other.namespace, &other.name) == (&id.namespace, &id.name) && other.uid != id.uid
        });
    }

    /// Stops all workers, side by side.
    pub async fn stop_all(&self) {
        let workers: Vec<_> = self.lock().drain().map(|(_, worker)| worker).collect();
        for worker in &workers {
            worker.stop.cancel();
        }
        for worker in workers {
            let _ = worker.task.await;
        }
    }

    /// Every notifier that has a worker.
    pub fn ids(&self) -> Vec<NotifierId> {
        self.lock().keys().cloned().collect()
    }

    /// What keeps each notifier from working, a line each.
    pub fn troubles(&self) -> Vec<String> {
        let mut lines: Vec<_> = self
            .lock()
            .iter()
            .flat_map(|(id, worker)| {
                let NotifierId { namespace, name, .. } = id;
                let picture = worker.health.borrow();
                let line = |reason: &str| format!("{namespace}/{name}: {reason}");
                let starting =
                    (!picture.started && picture.troubles.is_empty()).then(|| line("starting"));
                picture
                    .troubles
                    .values()
                    .map(|trouble| line(trouble.reason))
                    .chain(starting)
                    .collect::<Vec<_>>()
            })
            .collect();
        lines.sort();
        lines
    }

    fn abort_where(&self, gone: impl Fn(&NotifierId) -> bool) {
        for (_, worker) in self.lock().extract_if(|id, _| gone(id)) {
            worker.task.abort();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<NotifierId, Worker>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
