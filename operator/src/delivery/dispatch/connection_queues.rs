//! One message queue per connection.
//!
//! The messages of a connection are posted one after the other. Ready connections are served
//! round-robin, and their posts run concurrently. A queue exists only while it has messages, and
//! its size is bounded, so a client that does not read delays no other client.

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

/// Time after which a full queue is tried again, unless a post ends before.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Minimum duration of a post with high latency.
const HIGH_LATENCY: Duration = Duration::from_secs(1);

/// How long a connection counts as unresponsive after a failed post.
const FAILURE_WINDOW: Duration = Duration::from_secs(10);

/// A connection is unresponsive if its latency exceeds this multiple of the baseline, plus the
/// margin.
const LATENCY_FACTOR: u32 = 4;
const LATENCY_MARGIN: Duration = Duration::from_millis(250);

/// Number of responses that the baseline latency averages.
const BASELINE_RESPONSES: u32 = 32;

/// A message in the queue of one connection.
#[derive(Debug)]
struct QueuedMessage {
    connection: Arc<Connection>,
    message: Arc<Message>,
    /// Without an acknowledgement, the record is delivered again after a restart.
    ack: AckHandle,
    /// When it was queued, by the clock of the circuit breaker.
    queued_at: Duration,
    _permit: (OwnedSemaphorePermit, QueuedGuard),
}

/// A message that is being posted. It is the first one in the queue of its connection.
#[derive(Debug)]
pub struct InFlightMessage {
    pub connection: Arc<Connection>,
    pub message: Arc<Message>,
    /// When it was queued, by the clock of the circuit breaker.
    pub queued_at: Duration,
    pub retry: RetryState,
    pub last_post_failed: bool,
    /// Whether it takes up high-latency capacity.
    is_high_latency: bool,
    /// Row of the connection, read before the last post to a connection that seems closed.
    pub row: Option<Item>,
}

/// A message that was removed from its queue.
#[derive(Debug)]
pub struct RemovedMessage {
    pub connection: Arc<Connection>,
    pub message: Arc<Message>,
    pub ack: AckHandle,
}

/// The messages of one connection.
#[derive(Debug, Default)]
struct ConnectionQueue {
    messages: VecDeque<QueuedMessage>,
    kib: u32,
    /// Whether the first message is in flight.
    is_in_flight: bool,
    /// When the post of the first message started. Time before that does not count as latency,
    /// because the rate limiter or the circuit breaker may have delayed the post.
    post_started_at: Option<Instant>,
    /// State of the first message while it is not in flight.
    retry: Option<RetryState>,
    /// Whether the last post was throttled because the client's buffer was full.
    is_buffer_full: bool,
    last_post_failed: bool,
    /// When a post last failed, even if later ones succeeded.
    last_failure_at: Option<Instant>,
    last_latency: Duration,
    /// Moving average of the latency.
    avg_latency: Duration,
}

#[derive(Debug)]
struct QueuesState {
    queues: HashMap<Arc<str>, ConnectionQueue>,
    /// Connections whose first message can be posted, in order.
    ready: VecDeque<Arc<str>>,
    /// The same for connections with high latency, which get only a part of the posts.
    high_latency: VecDeque<Arc<str>>,
    /// Number of poster tasks.
    posters: usize,
    /// Number of poster tasks whose connection has high latency.
    high_latency_posters: usize,
    concurrency: AdaptiveConcurrency,
    /// Moving average of the latency over all connections.
    baseline_latency: Duration,
    /// Number of responses in `baseline_latency`.
    baseline_responses: u32,
}

/// The queues of one notifier.
#[derive(Clone, Debug)]
pub struct ConnectionQueues {
    state: Arc<Mutex<QueuesState>>,
    message_permits: Arc<Semaphore>,
    /// Notified when a queue may have room again.
    has_room: Arc<Notify>,
    connection_kib: u32,
    telemetry: NotifierTelemetry,
}

impl ConnectionQueues {
    pub fn new(limits: &DeliveryLimits, telemetry: NotifierTelemetry) -> Self {
        let state = QueuesState {
            queues: HashMap::new(),
            ready: VecDeque::new(),
            high_latency: VecDeque::new(),
            posters: 0,
            high_latency_posters: 0,
            concurrency: AdaptiveConcurrency::new(limits.max_posts, Instant::now()),
            baseline_latency: Duration::ZERO,
            baseline_responses: 0,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            message_permits: Arc::new(Semaphore::new(limits.max_queued_messages)),
            has_room: Arc::default(),
            connection_kib: limits.connection_kib,
            telemetry,
        }
    }

    /// Queues a message behind all earlier ones of its connection.
    ///
    /// Waits while the notifier has too many messages. If the queue of the connection is full, it
    /// also waits for a responsive connection, and for every connection while the circuit breaker
    /// is open. Returns the messages to drop: the oldest ones of an unresponsive connection, or one
    /// that is superseded.
    pub async fn enqueue(
        &self,
        connection: &Arc<Connection>,
        message: &Arc<Message>,
        ack: AckHandle,
        breaker: &CircuitBreaker,
        conflate: bool,
    ) -> Vec<(DropReason, RemovedMessage)> {
        let queued_at = breaker.clock();
        // The semaphore is never closed, so this cannot fail.
        let Ok(permit) = self.message_permits.clone().acquire_owned().await else {
            return vec![];
        };
        let (connection, message) = (connection.clone(), message.clone());
        let permit = (permit, self.telemetry.message_queued(message.size_kib()));
        let mut queued = QueuedMessage { connection, message, ack, queued_at, _permit: permit };
        loop {
            // Created before the check, so that no notification in between is missed.
            let has_room = self.has_room.notified();
            let is_held = breaker.is_open() && !fault!(OverflowWhilePostsHeld);
            match self.try_push(queued, is_held, conflate) {
                Ok(removed) => return removed,
                Err((returned, retry_at)) => {
                    queued = returned;
                    tokio::select! {
                        biased;
                        () = has_room => {}
                        () = sleep_until(retry_at) => {}
                    }
                }
            }
        }
    }

    /// Pushes a message to the queue of its connection. Returns it if the queue is full and the
    /// connection may still accept posts, with the time of the next attempt.
    fn try_push(
        &self,
        queued: QueuedMessage,
        is_held: bool,
        conflate: bool,
    ) -> Result<Vec<(DropReason, RemovedMessage)>, (QueuedMessage, Instant)> {
        let mut state = self.lock();
        let state = &mut *state;
        let id = &*queued.connection.id;
        let Some(queue) = state.queues.get_mut(id) else {
            let id: Arc<str> = Arc::from(id);
            state.queues.insert(id.clone(), ConnectionQueue::new(queued));
            state.ready.push_back(id);
            return Ok(vec![]);
        };
        if queue.kib + queued.message.size_kib() > self.connection_kib
            && (is_held || !queue.is_unresponsive(state.baseline_latency))
            && !fault!(ResponsiveConnectionOverflows)
        {
            return Err((queued, Instant::now() + RETRY_INTERVAL));
        }
        Ok(queue.push(queued, self.connection_kib, conflate))
    }

    /// Reserves a place for another poster task if one is needed and allowed.
    pub fn try_reserve_poster(&self) -> bool {
        let mut state = self.lock();
        let is_needed = state.posters < state.concurrency.limit() && state.has_next();
        state.posters += usize::from(is_needed);
        is_needed
    }

    /// Returns the next message to post. With `None`, the calling poster task must end.
    pub fn next(&self) -> Option<InFlightMessage> {
        let mut state = self.lock();
        let state = &mut *state;
        let next = if state.posters > state.concurrency.limit() { None } else { state.next() };
        if next.is_none() {
            state.posters -= 1;
        }
        next
    }

    /// Records the latency of a post, and whether it had a usable response.
    pub fn record_response(&self, latency: Duration, is_usable: bool) {
        let mut state = self.lock();
        let state = &mut *state;
        let is_saturated = state.posters >= state.concurrency.limit();
        match is_usable {
            true => {
                state.concurrency.record_response(latency, is_saturated, Instant::now());
                // The first responses have more weight, so the average soon has a useful value.
                state.baseline_responses = (state.baseline_responses + 1).min(BASELINE_RESPONSES);
                state.baseline_latency = (state.baseline_latency * (state.baseline_responses - 1)
                    + latency)
                    / state.baseline_responses;
            }
            false => state.concurrency.record_failure(Instant::now()),
        }
    }

    /// Removes a message that has its outcome. The next one of its connection becomes ready.
    pub fn remove(&self, in_flight: InFlightMessage, has_failed: bool) -> Option<RemovedMessage> {
        let mut state = self.lock();
        let state = &mut *state;
        state.high_latency_posters -= usize::from(in_flight.is_high_latency);
        let (id, queue) = state.queues.get_key_value(&*in_flight.connection.id)?;
        let (id, is_last) = (id.clone(), queue.messages.len() <= 1);
        let queue = state.queues.get_mut(&id)?;
        queue.release(has_failed);
        let removed = queue.remove(0)?;
        if is_last {
            state.queues.remove(&id);
        } else {
            let mut retry = in_flight.retry;
            retry.start_next_message();
            queue.is_buffer_full = retry.is_throttled();
            queue.retry = Some(retry);
            state.enqueue_ready(id);
        }
        self.has_room.notify_waiters();
        Some(removed)
    }

    /// Removes every message of a closed connection.
    pub fn remove_all(&self, in_flight: InFlightMessage) -> Vec<RemovedMessage> {
        let mut state = self.lock();
        state.high_latency_posters -= usize::from(in_flight.is_high_latency);
        let queue = state.queues.remove(&*in_flight.connection.id).unwrap_or_default();
        self.has_room.notify_waiters();
        queue.messages.into_iter().map(RemovedMessage::from).collect()
    }

    /// Records that the post of a message starts.
    pub fn mark_post_started(&self, in_flight: &InFlightMessage) {
        if let Some(queue) = self.lock().queues.get_mut(&*in_flight.connection.id) {
            queue.post_started_at = Some(Instant::now());
        }
    }

    /// Returns a message to its queue, where it stays until [`Self::resume`]. Counts as a failed
    /// post of the connection, unless the post was held.
    pub fn park(&self, in_flight: InFlightMessage, was_held: bool) -> Option<Arc<str>> {
        let mut state = self.lock();
        state.high_latency_posters -= usize::from(in_flight.is_high_latency);
        let id = state.queues.get_key_value(&*in_flight.connection.id)?.0.clone();
        let queue = state.queues.get_mut(&id)?;
        queue.release(!was_held);
        queue.is_buffer_full = in_flight.retry.is_throttled();
        queue.retry = Some(in_flight.retry);
        self.has_room.notify_waiters();
        Some(id)
    }

    /// Makes a connection with a parked message ready again.
    pub fn resume(&self, id: Arc<str>) {
        self.lock().enqueue_ready(id);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, QueuesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueuesState {
    /// Whether a message can be posted.
    fn has_next(&self) -> bool {
        !self.ready.is_empty() || !self.high_latency.is_empty() && self.has_high_latency_capacity()
    }

    /// Makes the first message of a connection ready.
    fn enqueue_ready(&mut self, id: Arc<str>) {
        let is_high_latency =
            self.queues.get(&id).is_some_and(|queue| queue.last_latency >= HIGH_LATENCY);
        if is_high_latency { self.high_latency.push_back(id) } else { self.ready.push_back(id) }
    }

    /// Whether a post to another connection with high latency may start. They get at most a quarter
    /// of the posts.
    fn has_high_latency_capacity(&self) -> bool {
        self.high_latency_posters < self.concurrency.limit().div_ceil(4)
    }

    fn next(&mut self) -> Option<InFlightMessage> {
        let high_latency =
            if self.has_high_latency_capacity() { self.high_latency.pop_front() } else { None };
        let is_high_latency = high_latency.is_some();
        let id = high_latency.or_else(|| self.ready.pop_front())?;
        let queue = self.queues.get_mut(&id)?;
        let first = queue.messages.front()?;
        queue.is_in_flight = true;
        self.high_latency_posters += usize::from(is_high_latency);
        Some(InFlightMessage {
            connection: first.connection.clone(),
            message: first.message.clone(),
            queued_at: first.queued_at,
            retry: queue.retry.take().unwrap_or_default(),
            last_post_failed: queue.last_post_failed,
            is_high_latency,
            row: None,
        })
    }
}

impl ConnectionQueue {
    fn new(queued: QueuedMessage) -> Self {
        let kib = queued.message.size_kib();
        Self { messages: VecDeque::from([queued]), kib, ..Self::default() }
    }

    /// Whether the connection accepts no posts, or accepts them far more slowly than others.
    fn is_unresponsive(&self, baseline_latency: Duration) -> bool {
        self.post_started_at.is_some_and(|at| at.elapsed() >= HIGH_LATENCY)
            || self.last_failure_at.is_some_and(|at| at.elapsed() < FAILURE_WINDOW)
            || self.avg_latency > baseline_latency * LATENCY_FACTOR + LATENCY_MARGIN
    }

    /// Records that the first message is no longer in flight.
    fn release(&mut self, has_failed: bool) {
        self.is_in_flight = false;
        if let Some(started_at) = self.post_started_at.take() {
            self.last_latency = started_at.elapsed();
            self.avg_latency = (self.avg_latency * 3 + self.last_latency) / 4;
        }
        self.last_post_failed = has_failed;
        if has_failed {
            self.last_failure_at = Some(Instant::now());
        }
    }

    /// Pushes a message, and returns those that must be dropped for it.
    fn push(
        &mut self,
        queued: QueuedMessage,
        max_kib: u32,
        conflate: bool,
    ) -> Vec<(DropReason, RemovedMessage)> {
        let mut dropped = Vec::new();
        self.kib += queued.message.size_kib();
        // A message in flight stays. It may arrive, and must arrive before later messages.
        let first = usize::from(self.is_in_flight && !fault!(OverflowDropsMessageInFlight));
        if conflate && self.is_buffer_full || self.kib > max_kib {
            let key = &queued.message.item_key;
            let mut same_item = (first..self.messages.len()).filter(|at| {
                self.messages.get(*at).is_some_and(|older| older.message.item_key == *key)
            });
            if let Some(removed) = same_item.next().and_then(|at| self.remove(at)) {
                dropped.push((DropReason::Superseded, removed));
            }
        }
        while self.kib > max_kib && self.messages.len() > first {
            dropped.extend(self.remove(first).map(|removed| (DropReason::Overflow, removed)));
        }
        self.messages.push_back(queued);
        dropped
    }

    fn remove(&mut self, at: usize) -> Option<RemovedMessage> {
        let removed = RemovedMessage::from(self.messages.remove(at)?);
        self.kib -= removed.message.size_kib();
        if at == 0
            && let Some(retry) = &mut self.retry
        {
            retry.start_next_message();
        }
        Some(removed)
    }
}

impl From<QueuedMessage> for RemovedMessage {
    fn from(QueuedMessage { connection, message, ack, .. }: QueuedMessage) -> Self {
        Self { connection, message, ack }
    }
}
