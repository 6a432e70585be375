//! The tasks that post: ended at once where that is needed, and known where one panicked.

use std::panic::AssertUnwindSafe;

use futures::FutureExt as _;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The tasks that post.
#[derive(Clone, Debug, Default)]
pub struct TaskGroup {
    /// All of them.
    pub tracker: TaskTracker,
    /// Ends them at once, wherever they are.
    pub abort: CancellationToken,
    /// Cancelled when one of them panicked: its messages will never have an outcome.
    pub panicked: CancellationToken,
}

impl TaskGroup {
    /// Runs one more.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (abandon, broken) = (self.abort.clone(), self.panicked.clone());
        self.tracker.spawn(async move {
            // The end comes first: a task that were polled once more would begin another post.
            let task = AssertUnwindSafe(async {
                tokio::select! {
                    biased;
                    () = abandon.cancelled() => {}
                    () = task => {}
                }
            });
            if task.catch_unwind().await.is_err() {
                broken.cancel();
            }
        });
    }
}
