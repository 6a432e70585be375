//! One queue per connection: messages of one connection leave one after the other, those of
//! different connections side by side. A queue is there only while it holds something.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::lookup::Connection;
use super::settle::Ticket;

/// How much of a notifier's may be under way at once.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Pages of records that are looked at, 1 MB each at the most as the stream sends them.
    pub pages: usize,
    /// Messages of records at work, in KiB.
    pub memory_kib: u32,
    /// Messages that wait, over all connections. Their bodies are bounded with their records, what
    /// is kept of their rows is shared by all messages that one lookup leads to.
    pub waiting: usize,
    /// Posts.
    pub posts: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { pages: 16, memory_kib: 16 * 1024, waiting: 65_536, posts: 256 }
    }
}

/// One message on its way to one connection.
#[derive(Debug)]
pub struct Delivery {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The message, shared by all connections that get it.
    pub message: Bytes,
    /// Settles it; what is dropped without being settled is delivered again after a restart.
    pub ticket: Ticket,
    /// When it was queued, by the gate's clock.
    pub queued_at: Duration,
    /// Its place among those that wait.
    _place: OwnedSemaphorePermit,
}

/// The tasks that post.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    /// All of them.
    pub tracker: TaskTracker,
    /// Ends them at once, wherever they are.
    pub abandon: CancellationToken,
    /// Cancelled when one of them panicked: its messages will never have an outcome.
    pub broken: CancellationToken,
}

impl Tasks {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let (abandon, broken) = (self.abandon.clone(), self.broken.clone());
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

type Queues = Mutex<HashMap<String, VecDeque<Delivery>>>;

/// The queues of a notifier.
#[derive(Clone, Debug)]
pub struct Outbox {
    queues: Arc<Queues>,
    places: Arc<Semaphore>,
    posts: Arc<Semaphore>,
    tasks: Tasks,
}

impl Outbox {
    /// An empty outbox, whose queues run as tasks of `tasks`.
    pub fn new(tasks: Tasks, bounds: &Bounds) -> Self {
        let places = Arc::new(Semaphore::new(bounds.waiting));
        let posts = Arc::new(Semaphore::new(bounds.posts));
        Self { queues: Arc::default(), places, posts, tasks }
    }

    /// Waits for a place among the posts under way.
    pub async fn post(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so that this cannot fail.
        self.posts.acquire().await.ok()
    }

    /// Queues a message behind all earlier ones of its connection; waits while too many wait.
    /// `drain` is what empties a queue that is new.
    pub async fn send<D, F>(
        &self,
        connection: Arc<Connection>,
        message: Bytes,
        ticket: Ticket,
        queued_at: Duration,
        drain: D,
    ) where
        D: FnOnce(Queue) -> F,
        F: Future<Output = ()> + Send + 'static,
    {
        // Never closed, so that this cannot fail.
        let Ok(place) = self.places.clone().acquire_owned().await else {
            return;
        };
        let id = connection.id.clone();
        let delivery = Delivery { connection, message, ticket, queued_at, _place: place };
        let is_new = match lock(&self.queues).entry(id.clone()) {
            Entry::Occupied(mut queue) => {
                queue.get_mut().push_back(delivery);
                false
            }
            Entry::Vacant(queue) => {
                queue.insert(VecDeque::from([delivery]));
                true
            }
        };
        if is_new {
            self.tasks.spawn(drain(Queue { id, queues: self.queues.clone() }));
        }
    }
}

/// One connection's queue, in the hands of the task that empties it.
#[derive(Debug)]
pub struct Queue {
    id: String,
    queues: Arc<Queues>,
}

impl Queue {
    /// The next message; with none left the queue is gone, and a later message makes a new one.
    pub fn next(&self) -> Option<Delivery> {
        let mut queues = lock(&self.queues);
        let next = queues.get_mut(&self.id)?.pop_front();
        if next.is_none() {
            queues.remove(&self.id);
        }
        next
    }
}

fn lock(queues: &Queues) -> std::sync::MutexGuard<'_, HashMap<String, VecDeque<Delivery>>> {
    queues.lock().unwrap_or_else(PoisonError::into_inner)
}
