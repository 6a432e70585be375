//! One queue per connection: messages of one connection leave one after the other, those of
//! different connections side by side, in turn. A queue is there only while it holds something, and
//! what it holds is bounded: a client that does not read holds up nobody else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::adaptive_concurrency::Flight;
use super::circuit_breaker::Gate;
use super::retry::Tries;
use crate::delivery::ack::Ticket;
use crate::delivery::config::Bounds;
use crate::delivery::lookup::row::Connection;
use crate::delivery::message::Message;
use crate::model::Item;
use crate::telemetry::{Dropped, NotifierTelemetry, Waiting};

/// A post that takes so long hangs.
const PATIENCE: Duration = Duration::from_secs(1);

/// A connection that did not take a message is not waited for, for so long.
const TROUBLED: Duration = Duration::from_secs(10);

/// Nor one that takes longer than others by this factor, and a little.
const SLOWER: u32 = 4;
const A_LITTLE: Duration = Duration::from_millis(250);

/// One message on its way to one connection.
#[derive(Debug)]
struct Delivery {
    connection: Arc<Connection>,
    message: Arc<Message>,
    /// Settles it; what is dropped without being settled is delivered again after a restart.
    ticket: Ticket,
    /// When it was queued, by the gate's clock.
    queued_at: Duration,
    /// Its place among those that wait, and in their number.
    _place: (OwnedSemaphorePermit, Waiting),
}

/// A message that is tried now, the first of its connection's queue.
#[derive(Debug)]
pub struct Head {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The message.
    pub message: Arc<Message>,
    /// When it was queued, by the gate's clock.
    pub queued_at: Duration,
    /// What was tried so far.
    pub tries: Tries,
    /// Whether its connection's last try was in vain.
    pub is_in_vain: bool,
    /// Whether its connection counts among those that hang.
    hangs: bool,
    /// The connection's row, as it was read before the gateway had the last word.
    pub row: Option<Item>,
}

/// A message that left its queue.
#[derive(Debug)]
pub struct Left {
    /// Its connection.
    pub connection: Arc<Connection>,
    /// The message.
    pub message: Arc<Message>,
    /// Settles it.
    pub ticket: Ticket,
}

/// The messages of one connection.
#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Delivery>,
    kib: u32,
    /// Whether somebody has the first one, to post it.
    is_taken: bool,
    /// When that post left; it may have to wait before, for what is not its connection's fault.
    left_at: Option<Instant>,
    /// What was tried of the first one, while nobody has it.
    tries: Option<Tries>,
    /// Whether the connection's last post found its buffer full.
    is_slow: bool,
    /// Whether the last post was in vain.
    is_in_vain: bool,
    /// When one was in vain last, whatever came since.
    troubled_at: Option<Instant>,
    /// How long the last post took, and the last ones, mostly.
    took: Duration,
    takes: Duration,
}

#[derive(Debug)]
struct State {
    queues: HashMap<Arc<str>, Queue>,
    /// Connections whose first message may leave, in turn; those that hang apart, so that they take a
    /// part of the posts only.
    ready: VecDeque<Arc<str>>,
    hanging: VecDeque<Arc<str>>,
    /// How many tasks post, and how many of them post again.
    posters: usize,
    posters_hanging: usize,
    flight: Flight,
    /// How long a post takes, mostly; and over how many of the last answers.
    typical: Duration,
    answers: u32,
}

/// The queues of a notifier.
#[derive(Clone, Debug)]
pub struct Outbox {
    state: Arc<Mutex<State>>,
    places: Arc<Semaphore>,
    /// Told when a message leaves while somebody waits for room.
    room: Arc<Notify>,
    connection_kib: u32,
    telemetry: NotifierTelemetry,
}

impl Outbox {
    /// An empty outbox.
    pub fn new(bounds: &Bounds, telemetry: NotifierTelemetry) -> Self {
        let state = State {
            queues: HashMap::new(),
            ready: VecDeque::new(),
            hanging: VecDeque::new(),
            posters: 0,
            posters_hanging: 0,
            flight: Flight::new(bounds.posts, Instant::now()),
            typical: Duration::ZERO,
            answers: 0,
        };
        let places = Arc::new(Semaphore::new(bounds.waiting));
        let (room, connection_kib) = (Arc::default(), bounds.connection_kib);
        Self { state: Arc::new(Mutex::new(state)), places, room, connection_kib, telemetry }
    }

    /// Queues a message behind all earlier ones of its connection; waits while too many wait in all,
    /// or for a connection that takes what it gets, as each may while the gate is shut. What has to go
    /// for it comes back: where its connection has too many and takes none, or is slow and `conflates`.
    pub async fn send(
        &self,
        connection: &Arc<Connection>,
        message: &Arc<Message>,
        ticket: Ticket,
        gate: &Gate,
        conflates: bool,
    ) -> Vec<(Dropped, Left)> {
        let queued_at = gate.clock();
        // Never closed, so that this cannot fail.
        let Ok(place) = self.places.clone().acquire_owned().await else {
            return vec![];
        };
        let (connection, message) = (connection.clone(), message.clone());
        let place = (place, self.telemetry.waits(message.kib()));
        let mut delivery = Delivery { connection, message, ticket, queued_at, _place: place };
        loop {
            // Asked for before looking, so that what happens in between is not missed.
            let room = self.room.notified();
            let is_held = gate.is_shut() && !fault!(OverflowWhilePostsHeld);
            match self.push(delivery, is_held, conflates) {
                Ok(gone) => return gone,
                Err((refused, until)) => {
                    delivery = refused;
                    tokio::select! {
                        biased;
                        () = room => {}
                        () = sleep_until(until) => {}
                    }
                }
            }
        }
    }

    /// Queues a message, unless its connection has too many and may still take them: it is to be
    /// asked again then, at this time at the latest.
    fn push(
        &self,
        delivery: Delivery,
        is_held: bool,
        conflates: bool,
    ) -> Result<Vec<(Dropped, Left)>, (Delivery, Instant)> {
        let mut state = self.lock();
        let state = &mut *state;
        let id = &*delivery.connection.id;
        let Some(queue) = state.queues.get_mut(id) else {
            let id: Arc<str> = Arc::from(id);
            state.queues.insert(id.clone(), Queue::of(delivery));
            state.ready.push_back(id);
            return Ok(vec![]);
        };
        if queue.kib + delivery.message.kib() > self.connection_kib
            && (is_held || !queue.is_stuck(state.typical))
            && !fault!(ResponsiveConnectionOverflows)
        {
            return Err((delivery, Instant::now() + PATIENCE));
        }
        Ok(queue.push(delivery, self.connection_kib, conflates))
    }

    /// Whether one more task should post.
    pub fn wants_poster(&self) -> bool {
        let mut state = self.lock();
        let wants = state.posters < state.flight.limit() && state.has_next();
        state.posters += usize::from(wants);
        wants
    }

    /// The next message to post; `None` if whoever asks is to end.
    pub fn take(&self) -> Option<Head> {
        let mut state = self.lock();
        let state = &mut *state;
        let next = if state.posters > state.flight.limit() { None } else { state.next() };
        if next.is_none() {
            state.posters -= 1;
        }
        next
    }

    /// An answer came, good or bad, after so long.
    pub fn answered(&self, took: Duration, is_good: bool) {
        let mut state = self.lock();
        let state = &mut *state;
        let is_full = state.posters >= state.flight.limit();
        match is_good {
            true => {
                state.flight.answered(took, is_full, Instant::now());
                // The first ones count more, so that it soon tells.
                state.answers = (state.answers + 1).min(32);
                state.typical = (state.typical * (state.answers - 1) + took) / state.answers;
            }
            false => state.flight.failed(Instant::now()),
        }
    }

    /// A message is over, in vain unless the connection `is_well`; its next one comes once it is that
    /// connection's turn.
    pub fn finish(&self, head: Head, is_well: bool) -> Option<Left> {
        let mut state = self.lock();
        let state = &mut *state;
        state.posters_hanging -= usize::from(head.hangs);
        let (id, queue) = state.queues.get_key_value(&*head.connection.id)?;
        let (id, is_last) = (id.clone(), queue.waiting.len() <= 1);
        let queue = state.queues.get_mut(&id)?;
        queue.came_back(!is_well);
        let left = queue.take(0)?;
        if is_last {
            state.queues.remove(&id);
        } else {
            let mut tries = head.tries;
            tries.begin_next();
            queue.is_slow = tries.is_throttled();
            queue.tries = Some(tries);
            state.is_next(id);
        }
        self.room.notify_waiters();
        Some(left)
    }

    /// Every message of a connection that is no more.
    pub fn finish_all(&self, head: Head) -> Vec<Left> {
        let mut state = self.lock();
        state.posters_hanging -= usize::from(head.hangs);
        let queue = state.queues.remove(&*head.connection.id).unwrap_or_default();
        self.room.notify_waiters();
        queue.waiting.into_iter().map(Left::from).collect()
    }

    /// The post of a message leaves.
    pub fn leaves(&self, head: &Head) {
        if let Some(queue) = self.lock().queues.get_mut(&*head.connection.id) {
            queue.left_at = Some(Instant::now());
        }
    }

    /// A message is to be tried again, after a while: until [`Self::wake`] nobody has it. Its
    /// connection took nothing, unless the post was held.
    pub fn park(&self, head: Head, was_held: bool) -> Option<Arc<str>> {
        let mut state = self.lock();
        state.posters_hanging -= usize::from(head.hangs);
        let id = state.queues.get_key_value(&*head.connection.id)?.0.clone();
        let queue = state.queues.get_mut(&id)?;
        queue.came_back(!was_held);
        queue.is_slow = head.tries.is_throttled();
        queue.tries = Some(head.tries);
        self.room.notify_waiters();
        Some(id)
    }

    /// A connection's first message may be tried again.
    pub fn wake(&self, id: Arc<str>) {
        self.lock().is_next(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Whether there is one to post.
    fn has_next(&self) -> bool {
        !self.ready.is_empty() || !self.hanging.is_empty() && self.may_hang()
    }

    /// A connection's first message may leave.
    fn is_next(&mut self, id: Arc<str>) {
        let hangs = self.queues.get(&id).is_some_and(|queue| queue.took >= PATIENCE);
        if hangs { self.hanging.push_back(id) } else { self.ready.push_back(id) }
    }

    /// At most a quarter of the posts are to connections that hang.
    fn may_hang(&self) -> bool {
        self.posters_hanging < self.flight.limit().div_ceil(4)
    }

    fn next(&mut self) -> Option<Head> {
        let hanging = if self.may_hang() { self.hanging.pop_front() } else { None };
        let hangs = hanging.is_some();
        let id = hanging.or_else(|| self.ready.pop_front())?;
        let queue = self.queues.get_mut(&id)?;
        let first = queue.waiting.front()?;
        queue.is_taken = true;
        self.posters_hanging += usize::from(hangs);
        Some(Head {
            connection: first.connection.clone(),
            message: first.message.clone(),
            queued_at: first.queued_at,
            tries: queue.tries.take().unwrap_or(Tries::new()),
            is_in_vain: queue.is_in_vain,
            hangs,
            row: None,
        })
    }
}

impl Queue {
    fn of(delivery: Delivery) -> Self {
        let kib = delivery.message.kib();
        Self { waiting: VecDeque::from([delivery]), kib, ..Self::default() }
    }

    /// Whether the connection is not to be waited for: it takes nothing, or not as others do.
    fn is_stuck(&self, typical: Duration) -> bool {
        self.left_at.is_some_and(|left_at| left_at.elapsed() >= PATIENCE)
            || self.troubled_at.is_some_and(|at| at.elapsed() < TROUBLED)
            || self.takes > typical * SLOWER + A_LITTLE
    }

    /// Whoever had the first message is done with it.
    fn came_back(&mut self, was_in_vain: bool) {
        self.is_taken = false;
        if let Some(left_at) = self.left_at.take() {
            self.took = left_at.elapsed();
            self.takes = (self.takes * 3 + self.took) / 4;
        }
        self.is_in_vain = was_in_vain;
        if was_in_vain {
            self.troubled_at = Some(Instant::now());
        }
    }

    /// Queues a message, and returns what has to go for it.
    fn push(&mut self, delivery: Delivery, most_kib: u32, conflates: bool) -> Vec<(Dropped, Left)> {
        let mut gone = Vec::new();
        self.kib += delivery.message.kib();
        // One that is being posted stays: it may arrive, and must arrive before what follows it.
        let first = usize::from(self.is_taken && !fault!(OverflowDropsMessageInFlight));
        if conflates && self.is_slow || self.kib > most_kib {
            let item = &delivery.message.item;
            let mut older = (first..self.waiting.len()).filter(|at| {
                self.waiting.get(*at).is_some_and(|older| older.message.item == *item)
            });
            if let Some(left) = older.next().and_then(|at| self.take(at)) {
                gone.push((Dropped::Superseded, left));
            }
        }
        while self.kib > most_kib && self.waiting.len() > first {
            gone.extend(self.take(first).map(|left| (Dropped::Overflow, left)));
        }
        self.waiting.push_back(delivery);
        gone
    }

    /// Takes a message out.
    fn take(&mut self, at: usize) -> Option<Left> {
        let left = Left::from(self.waiting.remove(at)?);
        self.kib -= left.message.kib();
        if at == 0
            && let Some(tries) = &mut self.tries
        {
            tries.begin_next();
        }
        Some(left)
    }
}

impl From<Delivery> for Left {
    fn from(Delivery { connection, message, ticket, .. }: Delivery) -> Self {
        Self { connection, message, ticket }
    }
}
