//! Runs the worker of one notifier in a task of its own, so that no worker delays another. Restarts it
//! after a panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::telemetry::{Component, Health, HealthSnapshot, Problem, Reason};

/// The wait before a worker that panicked is restarted.
const PANIC_RESTART_DELAY: Duration = Duration::from_secs(10);

/// Runs a worker until its token is cancelled. Can be called again after a run ended.
pub type RunWorker =
    Box<dyn Fn(Arc<Health>, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// Namespace and name of a notifier.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NotifierId {
    pub namespace: String,
    pub name: String,
}

/// The version of a notifier that a worker runs for. Another resource of the same name has another
/// uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    pub uid: String,
    /// The generation of the spec.
    pub generation: i64,
}

/// A worker that runs, or has ended by itself.
#[derive(Debug)]
pub struct WorkerHandle {
    stop: CancellationToken,
    task: JoinHandle<()>,
    health: watch::Receiver<HealthSnapshot>,
}

impl WorkerHandle {
    /// Starts a worker that runs until `stop`. `on_change` is called whenever its health changes.
    pub fn spawn(
        run: RunWorker,
        stop: CancellationToken,
        on_change: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let (sender, health) = Health::new();
        let sender = Arc::new(sender);
        let mut changes = health.clone();
        let report_changes = async move {
            while changes.changed().await.is_ok() {
                on_change();
            }
        };
        let stop_worker = stop.clone();
        let run_until_stopped = async move {
            // Creating the future can panic too.
            let attempt = async || run(sender.clone(), stop_worker.clone()).await;
            while catch_panic(&sender, attempt()).await.is_err()
                && stop_worker.run_until_cancelled(sleep(PANIC_RESTART_DELAY)).await.is_some()
            {
            }
            // Without a sender, `report_changes` ends.
            drop(sender);
        };
        let task = tokio::spawn(async move {
            tokio::join!(run_until_stopped, report_changes);
        });
        Self { stop, task, health }
    }

    /// The present health.
    pub fn health(&self) -> HealthSnapshot {
        self.health.borrow().clone()
    }

    /// Stops the worker and waits until it has drained.
    pub async fn stop(self) {
        self.stop.cancel();
        self.join().await;
    }

    /// Waits for the end of the worker.
    pub async fn join(self) {
        // A worker that was aborted has ended, too.
        let _ = self.task.await;
    }

    /// Ends the worker at once. What is not in its checkpoint is read again by the next one.
    pub fn abort(self) {
        self.task.abort();
    }
}

/// Runs a worker. Reports a panic, which is a bug in the operator.
async fn catch_panic(health: &Health, run: impl Future<Output = ()>) -> Result<(), ()> {
    AssertUnwindSafe(run).catch_unwind().await.map_err(|_| {
        health.mark_starting();
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
    use crate::telemetry::{Phase, assert_message_form};

    #[test]
    fn names_failure_cause_and_action_of_a_panic() {
        assert_message_form(&panicked_problem().message, &[]);
    }

    #[tokio::test(start_paused = true)]
    async fn restarts_and_reports_a_worker_that_panicked() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = runs.clone();
        let run: RunWorker = Box::new(move |health, stop| {
            let run = counted.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                health.mark_starting();
                health.mark_reading();
                assert!(run > 0, "the first run panics");
                stop.cancelled().await;
            })
        });
        let worker = WorkerHandle::spawn(run, CancellationToken::new(), || {});
        sleep(Duration::from_secs(1)).await;
        let snapshot = worker.health();
        assert_eq!(snapshot.phase, Phase::Starting);
        assert_eq!(snapshot.problems[&Component::Worker].reason, Reason::WorkerFailed);
        sleep(PANIC_RESTART_DELAY).await;
        let snapshot = worker.health();
        assert_eq!((snapshot.phase, snapshot.problems.len()), (Phase::Reading, 0));
        assert_eq!(runs.load(Ordering::Relaxed), 2);
        worker.stop().await;
    }

    #[tokio::test(start_paused = true)]
    async fn stops_a_worker_that_panics_in_every_run() {
        for panics_in_future in [false, true] {
            let runs = Arc::new(AtomicUsize::new(0));
            let counted = runs.clone();
            let run: RunWorker = Box::new(move |_, _| {
                let run = counted.fetch_add(1, Ordering::Relaxed);
                assert!(panics_in_future || run > 9, "the future is not even created");
                Box::pin(async move { assert!(run > 9, "every run panics") })
            });
            let worker = WorkerHandle::spawn(run, CancellationToken::new(), || {});
            sleep(PANIC_RESTART_DELAY * 3 / 2).await;
            let problem = &worker.health().problems[&Component::Worker];
            assert_eq!(problem.reason, Reason::WorkerFailed);
            worker.stop().await;
            assert_eq!(runs.load(Ordering::Relaxed), 2, "two runs until the stop");
        }
    }
}
