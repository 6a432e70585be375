//! A group of tasks that can be aborted together, and that reports when one of them panics.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The delivery tasks of one notifier.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup {
    pub tracker: TaskTracker,
    /// Aborts all tasks at their current await point.
    pub abort: CancellationToken,
    /// Cancelled when a task panics. Its messages then never get an outcome.
    pub panicked: CancellationToken,
}

impl TaskGroup {
    /// Spawns a task in the group.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (abort, panicked) = (self.abort.clone(), self.panicked.clone());
        self.tracker.spawn(async move {
            // The abort is polled first, because another poll of the task could start another post.
            let task = AssertUnwindSafe(async {
                tokio::select! {
                    biased;
                    () = abort.cancelled() => {}
                    () = task => {}
                }
            });
            if task.catch_unwind().await.is_err() {
                panicked.cancel();
            }
        });
    }
}
