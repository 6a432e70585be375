//! One queue per connection: messages of one connection leave one after the other, those of
//! different connections side by side, in turn. A queue is there only while it holds something, and
//! what it holds is bounded: a client that does not read holds up nobody else.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

use super::adaptive_concurrency::AdaptiveConcurrency;
use super::circuit_breaker::CircuitBreaker;
use super::retry::RetryState;
use crate::delivery::ack::AckHandle;
use crate::delivery::config::DeliveryLimits;
use crate::delivery::lookup::row::Connection;
use crate::delivery::message::Message;
use crate::model::Item;
use crate::telemetry::{DropReason, NotifierTelemetry, QueuedGuard};

/// A post that takes so long hangs.
const HIGH_LATENCY: Duration = Duration::from_secs(1);

/// A connection that did not take a message is not waited for, for so long.
const FAILURE_WINDOW: Duration = Duration::from_secs(10);

/// Nor one that takes longer than others by this factor, and a little.
const LATENCY_FACTOR: u32 = 4;
const LATENCY_MARGIN: Duration = Duration::from_millis(250);

/// One message on its way to one connection.
#[derive(Debug)]
struct QueuedMessage {
    connection: Arc<Connection>,
    message: Arc<Message>,
    /// Settles it; what is dropped without being settled is delivered again after a restart.
    ack: AckHandle,
    /// When it was queued, by the gate's clock.
    queued_at: Duration,
    /// Its place among those that wait, and in their number.
    _permit: (OwnedSemaphorePermit, QueuedGuard),
}

/// A message that is tried now, the first of its connection's queue.
#[derive(Debug)]
pub struct InFlightMessage {
    /// The connection.
    pub connection: Arc<Connection>,
    /// The message.
    pub message: Arc<Message>,
    /// When it was queued, by the gate's clock.
    pub queued_at: Duration,
    /// What was tried so far.
    pub retry: RetryState,
    /// Whether its connection's last try was in vain.
    pub last_post_failed: bool,
    /// Whether its connection counts among those that hang.
    is_high_latency: bool,
    /// The connection's row, as it was read before the gateway had the last word.
    pub row: Option<Item>,
}

/// A message that left its queue.
#[derive(Debug)]
pub struct RemovedMessage {
    /// Its connection.
    pub connection: Arc<Connection>,
    /// The message.
    pub message: Arc<Message>,
    /// Settles it.
    pub ack: AckHandle,
}

/// The messages of one connection.
#[derive(Debug, Default)]
struct ConnectionQueue {
    messages: VecDeque<QueuedMessage>,
    kib: u32,
    /// Whether somebody has the first one, to post it.
    is_in_flight: bool,
    /// When that post left; it may have to wait before, for what is not its connection's fault.
    post_started_at: Option<Instant>,
    /// What was tried of the first one, while nobody has it.
    retry: Option<RetryState>,
    /// Whether the connection's last post found its buffer full.
    is_buffer_full: bool,
    /// Whether the last post was in vain.
    last_post_failed: bool,
    /// When one was in vain last, whatever came since.
    last_failure_at: Option<Instant>,
    /// How long the last post took, and the last ones, mostly.
    last_latency: Duration,
    avg_latency: Duration,
}

#[derive(Debug)]
struct QueuesState {
    queues: HashMap<Arc<str>, ConnectionQueue>,
    /// Connections whose first message may leave, in turn; those that hang apart, so that they take a
    /// part of the posts only.
    ready: VecDeque<Arc<str>>,
    high_latency: VecDeque<Arc<str>>,
    /// How many tasks post, and how many of them post again.
    posters: usize,
    high_latency_posters: usize,
    concurrency: AdaptiveConcurrency,
    /// How long a post takes, mostly; and over how many of the last answers.
    baseline_latency: Duration,
    responses: u32,
}

/// The queues of a notifier.
#[derive(Clone, Debug)]
pub struct ConnectionQueues {
    state: Arc<Mutex<QueuesState>>,
    message_permits: Arc<Semaphore>,
    /// Told when a message leaves while somebody waits for room.
    has_room: Arc<Notify>,
    connection_kib: u32,
    telemetry: NotifierTelemetry,
}

impl ConnectionQueues {
    /// An empty outbox.
    pub fn new(bounds: &DeliveryLimits, telemetry: NotifierTelemetry) -> Self {
        let state = QueuesState {
            queues: HashMap::new(),
            ready: VecDeque::new(),
            high_latency: VecDeque::new(),
            posters: 0,
            high_latency_posters: 0,
            concurrency: AdaptiveConcurrency::new(bounds.max_posts, Instant::now()),
            baseline_latency: Duration::ZERO,
            responses: 0,
        };
        let message_permits = Arc::new(Semaphore::new(bounds.max_queued_messages));
        let (has_room, connection_kib) = (Arc::default(), bounds.connection_kib);
        Self {
            state: Arc::new(Mutex::new(state)),
            message_permits,
            has_room,
            connection_kib,
            telemetry,
        }
    }

    /// Queues a message behind all earlier ones of its connection; waits while too many wait in all,
    /// or for a connection that takes what it gets, as each may while the gate is shut. What has to go
    /// for it comes back: where its connection has too many and takes none, or is slow and `conflates`.
    pub async fn enqueue(
        &self,
        connection: &Arc<Connection>,
        message: &Arc<Message>,
        ticket: AckHandle,
        gate: &CircuitBreaker,
        conflates: bool,
    ) -> Vec<(DropReason, RemovedMessage)> {
        let queued_at = gate.clock();
        // Never closed, so that this cannot fail.
        let Ok(place) = self.message_permits.clone().acquire_owned().await else {
            return vec![];
        };
        let (connection, message) = (connection.clone(), message.clone());
        let place = (place, self.telemetry.queued(message.kib()));
        let mut delivery =
            QueuedMessage { connection, message, ack: ticket, queued_at, _permit: place };
        loop {
            // Asked for before looking, so that what happens in between is not missed.
            let room = self.has_room.notified();
            let is_held = gate.is_open() && !fault!(OverflowWhilePostsHeld);
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
        delivery: QueuedMessage,
        is_held: bool,
        conflates: bool,
    ) -> Result<Vec<(DropReason, RemovedMessage)>, (QueuedMessage, Instant)> {
        let mut state = self.lock();
        let state = &mut *state;
        let id = &*delivery.connection.id;
        let Some(queue) = state.queues.get_mut(id) else {
            let id: Arc<str> = Arc::from(id);
            state.queues.insert(id.clone(), ConnectionQueue::new(delivery));
            state.ready.push_back(id);
            return Ok(vec![]);
        };
        if queue.kib + delivery.message.kib() > self.connection_kib
            && (is_held || !queue.is_unresponsive(state.baseline_latency))
            && !fault!(ResponsiveConnectionOverflows)
        {
            return Err((delivery, Instant::now() + HIGH_LATENCY));
        }
        Ok(queue.push(delivery, self.connection_kib, conflates))
    }

    /// Whether one more task should post.
    pub fn try_reserve_poster(&self) -> bool {
        let mut state = self.lock();
        let wants = state.posters < state.concurrency.limit() && state.has_next();
        state.posters += usize::from(wants);
        wants
    }

    /// The next message to post; `None` if whoever asks is to end.
    pub fn next(&self) -> Option<InFlightMessage> {
        let mut state = self.lock();
        let state = &mut *state;
        let next = if state.posters > state.concurrency.limit() { None } else { state.next() };
        if next.is_none() {
            state.posters -= 1;
        }
        next
    }

    /// An answer came, good or bad, after so long.
    pub fn record_response(&self, took: Duration, is_good: bool) {
        let mut state = self.lock();
        let state = &mut *state;
        let is_full = state.posters >= state.concurrency.limit();
        match is_good {
            true => {
                state.concurrency.record_response(took, is_full, Instant::now());
                // The first ones count more, so that it soon tells.
                state.responses = (state.responses + 1).min(32);
                state.baseline_latency =
                    (state.baseline_latency * (state.responses - 1) + took) / state.responses;
            }
            false => state.concurrency.record_failure(Instant::now()),
        }
    }

    /// A message is over, in vain unless the connection `is_well`; its next one comes once it is that
    /// connection's turn.
    pub fn remove(&self, head: InFlightMessage, is_well: bool) -> Option<RemovedMessage> {
        let mut state = self.lock();
        let state = &mut *state;
        state.high_latency_posters -= usize::from(head.is_high_latency);
        let (id, queue) = state.queues.get_key_value(&*head.connection.id)?;
        let (id, is_last) = (id.clone(), queue.messages.len() <= 1);
        let queue = state.queues.get_mut(&id)?;
        queue.release(!is_well);
        let left = queue.take(0)?;
        if is_last {
            state.queues.remove(&id);
        } else {
            let mut tries = head.retry;
            tries.start_next_message();
            queue.is_buffer_full = tries.is_throttled();
            queue.retry = Some(tries);
            state.enqueue_ready(id);
        }
        self.has_room.notify_waiters();
        Some(left)
    }

    /// Every message of a connection that is no more.
    pub fn remove_all(&self, head: InFlightMessage) -> Vec<RemovedMessage> {
        let mut state = self.lock();
        state.high_latency_posters -= usize::from(head.is_high_latency);
        let queue = state.queues.remove(&*head.connection.id).unwrap_or_default();
        self.has_room.notify_waiters();
        queue.messages.into_iter().map(RemovedMessage::from).collect()
    }

    /// The post of a message leaves.
    pub fn mark_post_started(&self, head: &InFlightMessage) {
        if let Some(queue) = self.lock().queues.get_mut(&*head.connection.id) {
            queue.post_started_at = Some(Instant::now());
        }
    }

    /// A message is to be tried again, after a while: until [`Self::wake`] nobody has it. Its
    /// connection took nothing, unless the post was held.
    pub fn park(&self, head: InFlightMessage, was_held: bool) -> Option<Arc<str>> {
        let mut state = self.lock();
        state.high_latency_posters -= usize::from(head.is_high_latency);
        let id = state.queues.get_key_value(&*head.connection.id)?.0.clone();
        let queue = state.queues.get_mut(&id)?;
        queue.release(!was_held);
        queue.is_buffer_full = head.retry.is_throttled();
        queue.retry = Some(head.retry);
        self.has_room.notify_waiters();
        Some(id)
    }

    /// A connection's first message may be tried again.
    pub fn resume(&self, id: Arc<str>) {
        self.lock().enqueue_ready(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, QueuesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuesState {
    /// Whether there is one to post.
    fn has_next(&self) -> bool {
        !self.ready.is_empty() || !self.high_latency.is_empty() && self.has_high_latency_capacity()
    }

    /// A connection's first message may leave.
    fn enqueue_ready(&mut self, id: Arc<str>) {
        let hangs = self.queues.get(&id).is_some_and(|queue| queue.last_latency >= HIGH_LATENCY);
        if hangs { self.high_latency.push_back(id) } else { self.ready.push_back(id) }
    }

    /// At most a quarter of the posts are to connections that hang.
    fn has_high_latency_capacity(&self) -> bool {
        self.high_latency_posters < self.concurrency.limit().div_ceil(4)
    }

    fn next(&mut self) -> Option<InFlightMessage> {
        let hanging =
            if self.has_high_latency_capacity() { self.high_latency.pop_front() } else { None };
        let hangs = hanging.is_some();
        let id = hanging.or_else(|| self.ready.pop_front())?;
        let queue = self.queues.get_mut(&id)?;
        let first = queue.messages.front()?;
        queue.is_in_flight = true;
        self.high_latency_posters += usize::from(hangs);
        Some(InFlightMessage {
            connection: first.connection.clone(),
            message: first.message.clone(),
            queued_at: first.queued_at,
            retry: queue.retry.take().unwrap_or(RetryState::new()),
            last_post_failed: queue.last_post_failed,
            is_high_latency: hangs,
            row: None,
        })
    }
}

impl ConnectionQueue {
    fn new(delivery: QueuedMessage) -> Self {
        let kib = delivery.message.kib();
        Self { messages: VecDeque::from([delivery]), kib, ..Self::default() }
    }

    /// Whether the connection is not to be waited for: it takes nothing, or not as others do.
    fn is_unresponsive(&self, typical: Duration) -> bool {
        self.post_started_at.is_some_and(|left_at| left_at.elapsed() >= HIGH_LATENCY)
            || self.last_failure_at.is_some_and(|at| at.elapsed() < FAILURE_WINDOW)
            || self.avg_latency > typical * LATENCY_FACTOR + LATENCY_MARGIN
    }

    /// Whoever had the first message is done with it.
    fn release(&mut self, was_in_vain: bool) {
        self.is_in_flight = false;
        if let Some(left_at) = self.post_started_at.take() {
            self.last_latency = left_at.elapsed();
            self.avg_latency = (self.avg_latency * 3 + self.last_latency) / 4;
        }
        self.last_post_failed = was_in_vain;
        if was_in_vain {
            self.last_failure_at = Some(Instant::now());
        }
    }

    /// Queues a message, and returns what has to go for it.
    fn push(
        &mut self,
        delivery: QueuedMessage,
        most_kib: u32,
        conflates: bool,
    ) -> Vec<(DropReason, RemovedMessage)> {
        let mut gone = Vec::new();
        self.kib += delivery.message.kib();
        // One that is being posted stays: it may arrive, and must arrive before what follows it.
        let first = usize::from(self.is_in_flight && !fault!(OverflowDropsMessageInFlight));
        if conflates && self.is_buffer_full || self.kib > most_kib {
            let item = &delivery.message.item;
            let mut older = (first..self.messages.len()).filter(|at| {
                self.messages.get(*at).is_some_and(|older| older.message.item == *item)
            });
            if let Some(left) = older.next().and_then(|at| self.take(at)) {
                gone.push((DropReason::Superseded, left));
            }
        }
        while self.kib > most_kib && self.messages.len() > first {
            gone.extend(self.take(first).map(|left| (DropReason::Overflow, left)));
        }
        self.messages.push_back(delivery);
        gone
    }

    /// Takes a message out.
    fn take(&mut self, at: usize) -> Option<RemovedMessage> {
        let left = RemovedMessage::from(self.messages.remove(at)?);
        self.kib -= left.message.kib();
        if at == 0
            && let Some(tries) = &mut self.retry
        {
            tries.start_next_message();
        }
        Some(left)
    }
}

impl From<QueuedMessage> for RemovedMessage {
    fn from(QueuedMessage { connection, message, ack: ticket, .. }: QueuedMessage) -> Self {
        Self { connection, message, ack: ticket }
    }
}
