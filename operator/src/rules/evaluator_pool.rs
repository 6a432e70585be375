//! No team's expressions can starve another's, or whatever waits for the network: they are evaluated
//! on threads of their own, one fewer than the machine has cores. Notifiers stand in line, and one
//! that had its turn goes to its end; it has one turn at a time, however many shards it reads.

use std::collections::{HashMap, VecDeque};
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::{fmt, io, thread};

use tokio::sync::oneshot;

/// What an expression is shown not to need more of.
const STACK_BYTES: usize = 2 << 20;

/// Where expressions are evaluated.
#[derive(Clone, Debug)]
pub enum EvaluatorPool {
    /// Where they are asked for, at once: for tests on a paused clock.
    Inline,
    /// On threads of their own.
    Threads(Arc<FairQueue>),
}

impl EvaluatorPool {
    /// On this many threads, which live as long as the process; by default on one fewer than there
    /// are cores.
    pub fn on_threads(count: Option<NonZero<usize>>) -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let count = count.map_or(cores.saturating_sub(1).max(1), NonZero::get);
        let line = Arc::new(FairQueue::default());
        for _ in 0..count {
            let line = line.clone();
            let thread = thread::Builder::new().name("expressions".to_owned());
            thread.stack_size(STACK_BYTES).spawn(move || line.run_tasks())?;
        }
        Ok(Self::Threads(line))
    }

    /// The turns of one more notifier.
    pub fn handle(&self) -> EvaluatorHandle {
        match self {
            Self::Inline => EvaluatorHandle(None),
            Self::Threads(line) => EvaluatorHandle(Some((line.clone(), line.join()))),
        }
    }
}

/// The turns of one notifier.
#[derive(Debug)]
pub struct EvaluatorHandle(Option<(Arc<FairQueue>, u64)>);

impl EvaluatorHandle {
    /// Does some work when it is its turn, after all that was asked for before.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let Some((line, notifier)) = &self.0 else {
            return work();
        };
        let (sender, done) = oneshot::channel();
        line.push(
            *notifier,
            Box::new(move || {
                // Nobody waits any more where a worker was ended in the middle.
                if !sender.is_closed() {
                    let _ = sender.send(catch_unwind(AssertUnwindSafe(work)));
                }
            }),
        );
        match done.await {
            Ok(Ok(result)) => result,
            // A fault of ours, told where one in this task would be.
            Ok(Err(panic)) => resume_unwind(panic),
            // It is dropped undone only by a thread that is no more, as at the end of the process.
            Err(_) => std::future::pending().await,
        }
    }
}

type EvaluationTask = Box<dyn FnOnce() + Send>;

/// The notifiers that have work, in the order of their turns.
#[derive(Default)]
pub struct FairQueue {
    state: Mutex<QueueState>,
    arrived: Condvar,
}

#[derive(Default)]
struct QueueState {
    joined: u64,
    order: VecDeque<u64>,
    /// What waits, by notifier: each that stands in line or is at work has an entry.
    waiting: HashMap<u64, VecDeque<EvaluationTask>>,
}

impl FairQueue {
    fn join(&self) -> u64 {
        let mut state = self.lock();
        state.joined += 1;
        state.joined
    }

    fn push(&self, notifier: u64, work: EvaluationTask) {
        let mut state = self.lock();
        if let Some(waiting) = state.waiting.get_mut(&notifier) {
            waiting.push_back(work);
        } else {
            state.waiting.insert(notifier, VecDeque::from([work]));
            state.order.push_back(notifier);
            self.arrived.notify_one();
        }
    }

    /// Does what is next, for ever.
    fn run_tasks(&self) {
        let mut state = self.lock();
        loop {
            let Some(notifier) = state.order.pop_front() else {
                state = self.arrived.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let work = state.waiting.get_mut(&notifier).and_then(VecDeque::pop_front);
            drop(state);
            if let Some(work) = work {
                work();
            }
            state = self.lock();
            if state.waiting.get(&notifier).is_some_and(|waiting| !waiting.is_empty()) {
                state.order.push_back(notifier);
                self.arrived.notify_one();
            } else {
                state.waiting.remove(&notifier);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for FairQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in line", self.lock().order.len())
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
    async fn who_has_one_piece_of_work_waits_for_one_of_who_has_a_thousand() {
        let evaluator = threads(1);
        let (hostile, innocent) = (evaluator.handle(), evaluator.handle());
        let (done, order) = mpsc::channel();
        let note = |who: &'static str| {
            let done = done.clone();
            move || done.send(who).unwrap()
        };
        let (hold, held) = mpsc::channel::<()>();
        let first = hostile.run(move || held.recv().is_ok());
        let backlog = join_all((0..1_000).map(|_| hostile.run(note("hostile"))));
        let one = innocent.run(note("innocent"));
        join!(first, backlog, one, async move { drop(hold) });
        assert_eq!(order.recv(), Ok("innocent"), "after the piece that was begun");
        assert_eq!(order.try_iter().count(), 1_000);
    }

    #[tokio::test]
    async fn one_notifier_has_one_turn_at_a_time_and_in_order() {
        let turns = threads(4).handle();
        let (at_work, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Vec::new())));
        join_all((0..1_000).map(|n| {
            let (at_work, done) = (at_work.clone(), done.clone());
            turns.run(move || {
                assert_eq!(at_work.fetch_add(1, Ordering::SeqCst), 0);
                done.lock().unwrap().push(n);
                at_work.fetch_sub(1, Ordering::SeqCst);
            })
        }))
        .await;
        assert!(done.lock().unwrap().iter().copied().eq(0..1_000));
    }

    #[tokio::test]
    async fn notifiers_have_their_turns_side_by_side_where_there_are_threads() {
        let evaluator = threads(2);
        let (one, other) = (evaluator.handle(), evaluator.handle());
        let (here, there) = (Arc::new(Barrier::new(2)), Arc::new(Barrier::new(2)));
        let (both, again) = (here.clone(), there.clone());
        // Each waits for the other, twice: one thread would never get over the first.
        let work = |barrier: Arc<Barrier>| move || barrier.wait().is_leader();
        join!(one.run(work(here)), other.run(work(both)));
        join!(one.run(work(there)), other.run(work(again)));
    }

    #[tokio::test]
    async fn a_panic_is_the_askers_and_the_thread_goes_on() {
        let evaluator = threads(1);
        let turns = evaluator.handle();
        let task = spawn(async move { turns.run(|| panic!("a fault of ours")).await });
        assert!(task.await.unwrap_err().is_panic());
        assert_eq!(evaluator.handle().run(|| 7).await, 7);
        assert_eq!(EvaluatorPool::Inline.handle().run(|| 7).await, 7);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_done() {
        let evaluator = threads(1);
        let (ended, other) = (evaluator.handle(), evaluator.handle());
        let (hold, held) = mpsc::channel::<()>();
        let (done, order) = mpsc::channel();
        let note = |n: usize| {
            let done = done.clone();
            move || done.send(n).unwrap()
        };
        let first = ended.run(move || held.recv().is_ok());
        {
            let mut dropped = std::pin::pin!(ended.run(note(1)));
            let mut first = std::pin::pin!(first);
            assert!(
                futures::poll!(&mut first).is_pending()
                    && futures::poll!(&mut dropped).is_pending()
            );
        }
        drop(hold);
        join!(ended.run(note(2)), other.run(note(3)));
        assert_eq!(order.try_iter().filter(|n| *n == 1).count(), 0);
    }
}
