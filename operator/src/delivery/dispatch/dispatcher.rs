//! Posts queued messages until each has an outcome.
//!
//! Poster tasks take messages from the queues. A connection becomes ready again only after its post
//! has ended, so it has at most one post in flight.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::circuit_breaker::{CircuitBreaker, Permit};
use super::connection_queues::{ConnectionQueues, InFlightMessage, RemovedMessage};
use super::mass_deletion_guard::MassDeletionGuard;
use super::outcome::{EndpointFault, PostOutcome, classify_response};
use super::post_rate_limiter::PostRateLimiter;
use super::problems;
use super::retry::{MessageOutcome, RetryContext, RetryDecision};
use crate::delivery::ack::AckHandle;
use crate::delivery::config::{DeliveryLimits, DeliveryPolicy, SlowClientAction};
use crate::delivery::gateway::{Gateway, PostResponse};
use crate::delivery::lookup::Lookup;
use crate::delivery::lookup::row::Connection;
use crate::delivery::message::{MAX_MESSAGE_BYTES, Message};
use crate::delivery::task_group::TaskGroup;
use crate::telemetry::{Component, DropReason, Health, NotifierTelemetry};
use crate::timing::{FailureTracker, JitterRng, ServiceClock};

/// Settings and dependencies of a dispatcher.
#[derive(Debug)]
pub struct DispatcherConfig {
    pub lookup: Arc<Lookup>,
    pub gateway: Arc<dyn Gateway>,
    /// URL of the WebSocket API, for condition messages.
    pub endpoint: String,
    pub policy: DeliveryPolicy,
    /// Shared by all notifiers of the process that post to the same region.
    pub rate_limiter: Arc<PostRateLimiter>,
    pub limits: DeliveryLimits,
    /// The poster tasks, and the waits of retries.
    pub tasks: TaskGroup,
    pub health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    pub rng: Arc<JitterRng>,
}

/// Posts the messages of one notifier.
#[derive(Debug)]
pub struct Dispatcher {
    config: DispatcherConfig,
    queues: ConnectionQueues,
    breaker: CircuitBreaker,
    guard: Mutex<MassDeletionGuard>,
    /// Posts without a usable response since the last one that had one.
    failures: Mutex<FailureTracker>,
    clock: Arc<ServiceClock>,
    /// Number of messages that connections received.
    delivered_count: AtomicU64,
}

impl Dispatcher {
    pub fn new(config: DispatcherConfig, clock: Arc<ServiceClock>) -> Self {
        Self {
            queues: ConnectionQueues::new(&config.limits, config.telemetry.clone()),
            breaker: CircuitBreaker::new(config.rng.clone()),
            guard: Mutex::default(),
            failures: Mutex::new(FailureTracker::new(Duration::ZERO)),
            clock,
            delivered_count: AtomicU64::new(0),
            config,
        }
    }

    /// Queues a message for each of these connections. Returns once all are queued. Acknowledges
    /// `ack` once each message has an outcome.
    pub async fn queue_message(
        self: &Arc<Self>,
        connections: Vec<Arc<Connection>>,
        message: Message,
        ack: AckHandle,
    ) {
        let message = Arc::new(message);
        let conflate = self.config.policy.slow_client == SlowClientAction::Drop;
        for connection in connections {
            let ack = ack.split();
            let dropped =
                self.queues.enqueue(&connection, &message, ack, &self.breaker, conflate).await;
            for (reason, removed) in dropped {
                self.drop_message(removed, reason);
            }
            self.clone().spawn_poster_if_needed();
        }
        ack.ack();
    }

    fn spawn_poster_if_needed(self: Arc<Self>) {
        if self.queues.try_reserve_poster() {
            let tasks = self.config.tasks.clone();
            tasks.spawn(self.run_poster());
        }
    }

    /// Posts messages until none is ready. The future is boxed, because it spawns tasks of its own
    /// type.
    fn run_poster(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            while let Some(mut in_flight) = self.queues.next() {
                let decision = self.attempt(&mut in_flight).await;
                // This task keeps its place during the work that follows, such as the deletion of a
                // row. Other messages may be ready meanwhile.
                self.clone().spawn_poster_if_needed();
                match decision {
                    RetryDecision::Finish(outcome) => self.complete(in_flight, outcome).await,
                    RetryDecision::Retry(delay) => self.schedule_retry(in_flight, delay, false),
                    RetryDecision::RetryHeld(delay) => self.schedule_retry(in_flight, delay, true),
                }
            }
        }
        .boxed()
    }

    fn schedule_retry(
        self: &Arc<Self>,
        in_flight: InFlightMessage,
        delay: Duration,
        was_held: bool,
    ) {
        let Some(id) = self.queues.park(in_flight, was_held) else {
            return;
        };
        let this = self.clone();
        self.config.tasks.spawn(async move {
            if !delay.is_zero() {
                sleep(delay).await;
            }
            this.queues.resume(id);
            this.spawn_poster_if_needed();
        });
    }

    /// Makes one attempt to deliver a message, and decides the next step.
    async fn attempt(&self, in_flight: &mut InFlightMessage) -> RetryDecision {
        let policy = &self.config.policy;
        let age = self.breaker.clock().saturating_sub(in_flight.queued_at);
        if in_flight.last_post_failed && in_flight.retry.is_expired(age, policy) {
            return RetryDecision::Finish(MessageOutcome::Dropped(DropReason::Expired));
        }
        if in_flight.retry.is_last_gone_check() && self.can_delete_rows() {
            // The row must be read before the last post. The module docs of `lookup` say why.
            in_flight.row = self.config.lookup.read_row(&in_flight.connection).await;
        }
        let keys_only =
            in_flight.message.keys_only.as_ref().filter(|_| in_flight.retry.uses_keys_only());
        let body = keys_only.unwrap_or(&in_flight.message.body).clone();
        let outcome = match body.len() {
            0..=MAX_MESSAGE_BYTES => self.post(in_flight, &body).await,
            _ => PostOutcome::TooLarge,
        };
        let context = RetryContext {
            age: self.breaker.clock().saturating_sub(in_flight.queued_at),
            has_keys_only: in_flight.message.keys_only.is_some(),
            is_account_throttled: self.record_throttling(outcome, &in_flight.connection),
            delivered_count: self.delivered_count.load(Ordering::Relaxed),
        };
        match in_flight.retry.decide(outcome, policy, &context, &self.config.rng) {
            RetryDecision::Finish(MessageOutcome::Disconnect) => self.disconnect(in_flight).await,
            decision => decision,
        }
    }

    /// Records an outcome in the rate limiter. Returns whether the account is throttled.
    fn record_throttling(&self, outcome: PostOutcome, connection: &Connection) -> bool {
        let rate_limiter = &self.config.rate_limiter;
        match outcome {
            PostOutcome::Throttled => rate_limiter.record_response(&connection.id, true),
            PostOutcome::Delivered | PostOutcome::Gone => {
                rate_limiter.record_response(&connection.id, false)
            }
            // These outcomes say nothing about throttling.
            PostOutcome::TooLarge | PostOutcome::Hold(_) | PostOutcome::Retry => false,
        }
    }

    /// Closes the connection of a client that does not read. If that fails, the message is retried.
    async fn disconnect(&self, in_flight: &mut InFlightMessage) -> RetryDecision {
        let DispatcherConfig { lookup, gateway, rate_limiter, health, telemetry, rng, .. } =
            &self.config;
        in_flight.row = lookup.read_row(&in_flight.connection).await;
        telemetry.post_rate_limited(rate_limiter.acquire().await);
        let _permit = self.breaker.acquire().await;
        let outcome = classify_response(&gateway.disconnect(&in_flight.connection.id).await);
        telemetry.client_disconnected(&in_flight.connection.id, outcome.metric_label());
        match outcome {
            PostOutcome::Delivered | PostOutcome::Gone => {
                health.clear(&Component::Disconnection);
                return RetryDecision::Finish(MessageOutcome::Disconnect);
            }
            PostOutcome::Hold(EndpointFault::Forbidden) => {
                health.set_warning(
                    Component::Disconnection,
                    problems::disconnect_denied(&self.config.endpoint),
                );
            }
            _ => {}
        }
        if fault!(RowDeletedAfterFailedDisconnect) {
            return RetryDecision::Finish(MessageOutcome::Disconnect);
        }
        RetryDecision::Retry(in_flight.retry.next_wait(rng))
    }

    /// Posts a message once the rate limiter and the circuit breaker allow it.
    async fn post(&self, in_flight: &InFlightMessage, body: &Bytes) -> PostOutcome {
        let connection = &in_flight.connection;
        let DispatcherConfig { rate_limiter, gateway, telemetry, .. } = &self.config;
        telemetry.post_rate_limited(rate_limiter.acquire().await);
        let mut permit = self.breaker.acquire().await;
        self.queues.mark_post_started(in_flight);
        let start = Instant::now();
        let response = gateway.post(&connection.id, body).await;
        let outcome = classify_response(&response);
        let latency = start.elapsed();
        telemetry.posted(outcome.metric_label(), latency);
        self.queues.record_response(latency, !matches!(outcome, PostOutcome::Retry));
        self.record_outcome(&response, outcome, connection, &mut permit);
        outcome
    }

    /// Completes a message with its outcome.
    async fn complete(&self, in_flight: InFlightMessage, outcome: MessageOutcome) {
        let telemetry = &self.config.telemetry;
        match outcome {
            MessageOutcome::Delivered => {
                self.delivered_count.fetch_add(1, Ordering::Relaxed);
                let created_at = in_flight.message.created_at;
                if let Some(removed) = self.queues.remove(in_flight, false) {
                    telemetry.message_delivered(self.clock.now().0.saturating_sub(created_at.0));
                    removed.ack.ack();
                }
            }
            MessageOutcome::Dropped(reason) => {
                let has_failed = reason != DropReason::TooLarge;
                if let Some(removed) = self.queues.remove(in_flight, has_failed) {
                    self.drop_message(removed, reason);
                }
            }
            // Messages for a closed connection are not dropped: they have no receiver.
            MessageOutcome::Gone => {
                self.delete_gone_row(&in_flight).await;
                for removed in self.queues.remove_all(in_flight) {
                    telemetry.connection_gone();
                    removed.ack.ack();
                }
            }
            MessageOutcome::Disconnect => {
                let row = in_flight.row.clone();
                self.config.lookup.delete_stale_row(&in_flight.connection, row).await;
                for removed in self.queues.remove_all(in_flight) {
                    self.drop_message(removed, DropReason::Disconnected);
                }
            }
        }
    }

    fn drop_message(&self, removed: RemovedMessage, reason: DropReason) {
        if reason == DropReason::Superseded && fault!(SupersededMessageNotCounted) {
            return removed.ack.ack();
        }
        if !fault!(DroppedMessageNotCounted) {
            let RemovedMessage { connection, ack, .. } = &removed;
            self.config.telemetry.message_dropped(reason, &connection.id, ack.sequence_number());
        }
        removed.ack.ack_dropped(reason);
    }

    /// Deletes the row of a closed connection, unless every connection seems closed.
    async fn delete_gone_row(&self, in_flight: &InFlightMessage) {
        let DispatcherConfig { lookup, health, endpoint, .. } = &self.config;
        if self.can_delete_rows() {
            health.clear(&Component::RowDeletionGuard);
            lookup.delete_stale_row(&in_flight.connection, in_flight.row.clone()).await;
        } else {
            health.set_problem(Component::RowDeletionGuard, problems::all_gone(endpoint));
        }
    }

    fn can_delete_rows(&self) -> bool {
        self.guard().can_delete(Instant::now())
    }

    /// Records an outcome in the circuit breaker, the deletion guard and the health.
    fn record_outcome(
        &self,
        response: &PostResponse,
        outcome: PostOutcome,
        connection: &Connection,
        permit: &mut Permit<'_>,
    ) {
        let DispatcherConfig { health, endpoint, .. } = &self.config;
        let is_unavailable = self.record_availability(outcome != PostOutcome::Retry);
        match outcome {
            // The problem is set before the breaker opens, so that the post that closes the breaker
            // also clears it.
            PostOutcome::Hold(fault) => {
                health
                    .set_problem(Component::Gateway, problems::rejected(endpoint, fault, response));
                self.breaker.trip();
            }
            PostOutcome::Delivered | PostOutcome::Gone | PostOutcome::TooLarge => {
                self.breaker.reset(permit);
                health.clear(&Component::Gateway);
            }
            PostOutcome::Retry if is_unavailable => {
                health.set_problem(Component::Gateway, problems::unavailable(endpoint));
            }
            // The endpoint is available.
            PostOutcome::Throttled if !self.breaker.is_open() => health.clear(&Component::Gateway),
            // These outcomes say nothing about permissions or the endpoint.
            PostOutcome::Throttled | PostOutcome::Retry => {}
        }
        match outcome {
            PostOutcome::Delivered => {
                self.guard().record_delivery(Instant::now());
                health.clear(&Component::RowDeletionGuard);
            }
            PostOutcome::Gone => self.guard().record_gone(&connection.id, Instant::now()),
            _ => {}
        }
    }

    /// Records whether a post had a usable response. Returns whether the endpoint has been
    /// unavailable for long enough to report it.
    fn record_availability(&self, is_available: bool) -> bool {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        if is_available {
            failures.record_success();
            return false;
        }
        failures.record_failure()
    }

    fn guard(&self) -> std::sync::MutexGuard<'_, MassDeletionGuard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
