//! Thread pool that evaluates expressions, scheduled round-robin between notifiers.
//!
//! Users write the expressions, and one record can take up to 70 ms. The pool therefore has its own
//! threads, one fewer than the cores of the machine, so expressions never block the threads that
//! serve the network. A notifier runs at most one task at a time, however many shards it reads. A
//! notifier with a single task waits for at most one task of every other notifier. Tasks are not
//! preempted.

use std::collections::{HashMap, VecDeque};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{fmt, io, thread};

use tokio::sync::oneshot;

/// The stack of each thread. A test shows that three quarters of it suffice for every expression.
const STACK_BYTES: usize = 2 << 20;

/// Runs evaluation tasks.
#[derive(Clone, Debug)]
pub enum EvaluatorPool {
    /// Runs each task at once in the calling task, for tests with a paused clock.
    Inline,
    /// Runs tasks on dedicated threads.
    Threads(Arc<FairQueue>),
}

impl EvaluatorPool {
    /// Starts `count` threads, which run until the process ends. The default is one fewer than the
    /// cores of the machine, but at least one.
    pub fn on_threads(count: Option<NonZero<usize>>) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let count = count.map_or(cores.saturating_sub(1).max(1), NonZero::get);
        let queue = Arc::new(FairQueue::default());
        for _ in 0..count {
            let queue = queue.clone();
            let thread = thread::Builder::new().name("expressions".to_owned());
            thread.stack_size(STACK_BYTES).spawn(move || queue.run_tasks())?;
        }
        Ok(Self::Threads(queue))
    }

    /// A handle for one more notifier.
    pub fn handle(&self) -> EvaluatorHandle {
        match self {
            Self::Inline => EvaluatorHandle(None),
            Self::Threads(queue) => EvaluatorHandle(Some((queue.clone(), queue.register()))),
        }
    }
}

/// Submits the tasks of one notifier.
#[derive(Debug)]
pub struct EvaluatorHandle(Option<(Arc<FairQueue>, u64)>);

impl EvaluatorHandle {
    /// Runs a task after all earlier tasks of the notifier, and returns its result. A panic of the
    /// task continues in the caller.
    pub async fn run<T: Send + 'static>(&self, task: impl FnOnce() -> T + Send + 'static) -> T {
        let Some((queue, notifier)) = &self.0 else {
            return task();
        };
        let (result_tx, result_rx) = oneshot::channel();
        queue.push(
            *notifier,
            Box::new(move || {
                // The receiver is dropped if the worker was stopped in the meantime.
                if !result_tx.is_closed() {
                    let _ = result_tx.send(catch_unwind(AssertUnwindSafe(task)));
                }
            }),
        );
        match result_rx.await {
            Ok(Ok(result)) => result,
            // A bug in the operator: it must be reported like a panic of the calling task.
            Ok(Err(panic)) => resume_unwind(panic),
            // A task is dropped without a result only with its thread, at the end of the process.
            Err(_) => std::future::pending().await,
        }
    }
}

type EvaluationTask = Box<dyn FnOnce() + Send>;

/// Queue of tasks that takes one task of each notifier in turn.
#[derive(Default)]
pub struct FairQueue {
    state: Mutex<QueueState>,
    task_ready: Condvar,
}

#[derive(Default)]
struct QueueState {
    last_notifier: u64,
    /// The notifiers with queued tasks and no running one, in the order in which they run next.
    order: VecDeque<u64>,
    /// The queued tasks by notifier. A notifier with a queued or running task has an entry.
    queued: HashMap<u64, VecDeque<EvaluationTask>>,
}

impl FairQueue {
    fn register(&self) -> u64 {
        let mut state = self.lock();
        state.last_notifier += 1;
        state.last_notifier
    }

    fn push(&self, notifier: u64, task: EvaluationTask) {
        let mut state = self.lock();
        if let Some(queued) = state.queued.get_mut(&notifier) {
            queued.push_back(task);
        } else {
            state.queued.insert(notifier, VecDeque::from([task]));
            state.order.push_back(notifier);
            self.task_ready.notify_one();
        }
    }

    /// Runs tasks until the process ends.
    fn run_tasks(&self) {
        let mut state = self.lock();
        loop {
            let Some(notifier) = state.order.pop_front() else {
                state = self.task_ready.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let task = state.queued.get_mut(&notifier).and_then(VecDeque::pop_front);
            drop(state);
            if let Some(task) = task {
                task();
            }
            state = self.lock();
            if state.queued.get(&notifier).is_some_and(|queued| !queued.is_empty()) {
                state.order.push_back(notifier);
                self.task_ready.notify_one();
            } else {
                state.queued.remove(&notifier);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FairQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairQueue").field("ready_notifiers", &self.lock().order.len()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::{Barrier, mpsc};

    use futures::future::join_all;
    use tokio::{join, spawn};

    use super::*;

    fn threads(count: usize) -> EvaluatorPool {
        EvaluatorPool::on_threads(NonZero::new(count)).unwrap()
    }

    #[tokio::test]
    async fn runs_a_single_task_before_the_backlog_of_another_notifier() {
        let pool = threads(1);
        let (busy, quiet) = (pool.handle(), pool.handle());
        let (done_tx, done_rx) = mpsc::channel();
        let report = |notifier: &'static str| {
            let done_tx = done_tx.clone();
            move || done_tx.send(notifier).unwrap()
        };
        let (release, blocked) = mpsc::channel::<()>();
        let blocking = busy.run(move || blocked.recv().is_ok());
        let backlog = join_all((0..1_000).map(|_| busy.run(report("busy"))));
        let single = quiet.run(report("quiet"));
        join!(blocking, backlog, single, async move { drop(release) });
        assert_eq!(done_rx.recv(), Ok("quiet"), "after the task that was already running");
        assert_eq!(done_rx.try_iter().count(), 1_000);
    }

    #[tokio::test]
    async fn runs_one_task_of_a_notifier_at_a_time_and_in_order() {
        let handle = threads(4).handle();
        let (running, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        join_all((0..1_000).map(|n| {
            let (running, done) = (running.clone(), done.clone());
            handle.run(move || {
                assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
                done.lock().unwrap().push(n);
                running.fetch_sub(1, Ordering::SeqCst);
            })
        }))
        .await;
        assert!(done.lock().unwrap().iter().copied().eq(0..1_000));
    }

    #[tokio::test]
    async fn runs_tasks_of_different_notifiers_in_parallel() {
        let pool = threads(2);
        let (one, other) = (pool.handle(), pool.handle());
        let [first, second] = [Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2))];
        // Each task waits for the other one, so a single thread would never pass the barrier.
        let wait = |barrier: &Arc<Barrier>| {
            let barrier = barrier.clone();
            move || barrier.wait().is_leader()
        };
        join!(one.run(wait(&first)), other.run(wait(&first)));
        join!(one.run(wait(&second)), other.run(wait(&second)));
    }

    #[tokio::test]
    async fn reports_a_panic_to_the_caller_and_keeps_the_thread() {
        let pool = threads(1);
        let handle = pool.handle();
        let task = spawn(async move { handle.run(|| panic!("a bug in the operator")).await });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(pool.handle().run(|| 7).await, 7);
        assert_eq!(EvaluatorPool::Inline.handle().run(|| 7).await, 7);
    }

    #[tokio::test]
    async fn skips_a_task_whose_caller_was_dropped() {
        let pool = threads(1);
        let (stopped, other) = (pool.handle(), pool.handle());
        let (release, blocked) = mpsc::channel::<()>();
        let (done_tx, done_rx) = mpsc::channel();
        let report = |n: usize| {
            let done_tx = done_tx.clone();
            move || done_tx.send(n).unwrap()
        };
        let blocking = stopped.run(move || blocked.recv().is_ok());
        {
            let mut dropped = std::pin::pin!(stopped.run(report(1)));
            let mut blocking = std::pin::pin!(blocking);
            assert!(
                futures::poll!(&mut blocking).is_pending()
                    && futures::poll!(&mut dropped).is_pending()
            );
        }
        drop(release);
        join!(stopped.run(report(2)), other.run(report(3)));
        assert_eq!(done_rx.try_iter().filter(|n| *n == 1).count(), 0);
    }
}
