//! Posts messages: to one connection in order, to different ones side by side, each until it has an
//! outcome.

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
use crate::delivery::gateway::Gateway;
use crate::delivery::lookup::Lookup;
use crate::delivery::lookup::row::Connection;
use crate::delivery::message::{MAX_MESSAGE_BYTES, Message};
use crate::delivery::task_group::TaskGroup;
use crate::telemetry::{Component, DropReason, Health, NotifierTelemetry};
use crate::timing::{FailureTracker, JitterRng, ServiceClock};

/// Who posts for a notifier, and by which rules.
#[derive(Debug)]
pub struct DispatcherConfig {
    /// Where connections are stored.
    pub lookup: Arc<Lookup>,
    /// The WebSocket API.
    pub gateway: Arc<dyn Gateway>,
    /// Its endpoint, named in conditions.
    pub endpoint: String,
    /// What is done about messages that do not get through.
    pub policy: DeliveryPolicy,
    /// How fast all notifiers may post together.
    pub rate_limiter: Arc<PostRateLimiter>,
    /// How much may be under way at once.
    pub limits: DeliveryLimits,
    /// The tasks that post.
    pub tasks: TaskGroup,
    /// Where troubles are told.
    pub health: Arc<Health>,
    /// Where events are told.
    pub telemetry: NotifierTelemetry,
    /// What spreads the waits.
    pub rng: Arc<JitterRng>,
}

/// Posts the messages of one notifier.
#[derive(Debug)]
pub struct Dispatcher {
    config: DispatcherConfig,
    queues: ConnectionQueues,
    breaker: CircuitBreaker,
    guard: Mutex<MassDeletionGuard>,
    /// Whether, and since when, no post has had a usable answer.
    failures: Mutex<FailureTracker>,
    /// The service's clock.
    clock: Arc<ServiceClock>,
    /// How many messages were delivered.
    delivered_count: AtomicU64,
}

impl Dispatcher {
    /// A deliverer with an empty outbox.
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

    /// Queues a message for each of these connections, and settles the ticket once each has an
    /// outcome. Returns when all are queued.
    pub async fn send(
        self: &Arc<Self>,
        connections: Vec<Arc<Connection>>,
        message: Message,
        ticket: AckHandle,
    ) {
        let message = Arc::new(message);
        let conflates = self.config.policy.slow_client == SlowClientAction::Drop;
        for connection in connections {
            let share = ticket.split();
            let gone =
                self.queues.enqueue(&connection, &message, share, &self.breaker, conflates).await;
            for (why, left) in gone {
                self.drop_message(left, why);
            }
            self.clone().spawn_poster_if_needed();
        }
        ticket.ack();
    }

    /// Begins another task that posts, if one is wanted.
    fn spawn_poster_if_needed(self: Arc<Self>) {
        if self.queues.try_reserve_poster() {
            let tasks = self.config.tasks.clone();
            tasks.spawn(self.run_poster());
        }
    }

    /// Posts what is ready, until there is nothing more. Boxed, because it begins others like itself.
    fn run_poster(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            while let Some(mut head) = self.queues.next() {
                let next = self.attempt(&mut head).await;
                // Its place is taken until here, so that what it leaves to do is done by others too.
                self.clone().spawn_poster_if_needed();
                match next {
                    RetryDecision::Finish(end) => self.complete(head, end).await,
                    RetryDecision::Retry(wait) => self.schedule_retry(head, wait, false),
                    RetryDecision::RetryHeld(wait) => self.schedule_retry(head, wait, true),
                }
            }
        }
        .boxed()
    }

    /// Tries a message again after a while.
    fn schedule_retry(self: &Arc<Self>, head: InFlightMessage, wait: Duration, was_held: bool) {
        let Some(id) = self.queues.park(head, was_held) else {
            return;
        };
        let this = self.clone();
        self.config.tasks.spawn(async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            this.queues.resume(id);
            this.spawn_poster_if_needed();
        });
    }

    /// One try, and what follows from it.
    async fn attempt(&self, head: &mut InFlightMessage) -> RetryDecision {
        let policy = &self.config.policy;
        let age = self.breaker.clock().saturating_sub(head.queued_at);
        if head.last_post_failed && head.retry.is_expired(age, policy) {
            return RetryDecision::Finish(MessageOutcome::Dropped(DropReason::Expired));
        }
        if head.retry.is_last_gone_check() && self.may_delete() {
            // Before the gateway has the last word, see the lookup.
            head.row = self.config.lookup.read_row(&head.connection).await;
        }
        let short = head.message.keys_only.as_ref().filter(|_| head.retry.uses_keys_only());
        let body = short.unwrap_or(&head.message.body).clone();
        let outcome = match body.len() {
            0..=MAX_MESSAGE_BYTES => self.post(head, &body).await,
            _ => PostOutcome::TooLarge,
        };
        let known = RetryContext {
            age: self.breaker.clock().saturating_sub(head.queued_at),
            has_keys_only: head.message.keys_only.is_some(),
            is_account_throttled: self.record_throttling(outcome, &head.connection),
            delivered_count: self.delivered_count.load(Ordering::Relaxed),
        };
        match head.retry.decide(outcome, policy, &known, &self.config.rng) {
            RetryDecision::Finish(MessageOutcome::Disconnect) => self.disconnect(head).await,
            next => next,
        }
    }

    /// Whether it is the account that is throttled, as the outcomes of all posts tell.
    fn record_throttling(&self, outcome: PostOutcome, connection: &Connection) -> bool {
        match outcome {
            PostOutcome::Throttled => {
                self.config.rate_limiter.record_response(&connection.id, true)
            }
            PostOutcome::Delivered | PostOutcome::Gone => {
                self.config.rate_limiter.record_response(&connection.id, false)
            }
            // These say nothing of it.
            PostOutcome::TooLarge | PostOutcome::Hold(_) | PostOutcome::Retry => false,
        }
    }

    /// Disconnects a client that does not read; if that fails, its message is tried again.
    async fn disconnect(&self, head: &mut InFlightMessage) -> RetryDecision {
        let DispatcherConfig {
            lookup,
            gateway,
            rate_limiter: limits,
            health,
            telemetry,
            rng: random,
            ..
        } = &self.config;
        head.row = lookup.read_row(&head.connection).await;
        telemetry.post_rate_limited(limits.acquire().await);
        let _pass = self.breaker.acquire().await;
        let outcome = classify_response(&gateway.disconnect(&head.connection.id).await);
        telemetry.disconnected(&head.connection.id, outcome.metric_label());
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
        RetryDecision::Retry(head.retry.next_wait(random))
    }

    /// One post, once it may leave.
    async fn post(&self, head: &InFlightMessage, body: &Bytes) -> PostOutcome {
        let connection = &head.connection;
        let DispatcherConfig { rate_limiter: limits, gateway, telemetry, .. } = &self.config;
        telemetry.post_rate_limited(limits.acquire().await);
        let mut pass = self.breaker.acquire().await;
        self.queues.mark_post_started(head);
        let begun = Instant::now();
        let answer = gateway.post(&connection.id, body).await;
        let outcome = classify_response(&answer);
        let took = begun.elapsed();
        telemetry.posted(outcome.metric_label(), took);
        self.queues.record_response(took, !matches!(outcome, PostOutcome::Retry));
        self.record_outcome(outcome, connection, &mut pass);
        outcome
    }

    /// A message is over.
    async fn complete(&self, head: InFlightMessage, end: MessageOutcome) {
        let telemetry = &self.config.telemetry;
        match end {
            MessageOutcome::Delivered => {
                self.delivered_count.fetch_add(1, Ordering::Relaxed);
                let created = head.message.created_at;
                if let Some(left) = self.queues.remove(head, true) {
                    telemetry.delivered(self.clock.now().0.saturating_sub(created.0));
                    left.ack.ack();
                }
            }
            MessageOutcome::Dropped(why) => {
                let is_in_vain = why != DropReason::TooLarge;
                if let Some(left) = self.queues.remove(head, !is_in_vain) {
                    self.drop_message(left, why);
                }
            }
            // What was queued behind a connection's end is for nobody.
            MessageOutcome::Gone => {
                self.handle_gone(&head).await;
                for left in self.queues.remove_all(head) {
                    telemetry.gone();
                    left.ack.ack();
                }
            }
            MessageOutcome::Disconnect => {
                self.config.lookup.delete_stale_row(&head.connection, head.row.clone()).await;
                for left in self.queues.remove_all(head) {
                    self.drop_message(left, DropReason::Disconnected);
                }
            }
        }
    }

    /// A message is given up.
    fn drop_message(&self, left: RemovedMessage, why: DropReason) {
        if why == DropReason::Superseded && fault!(SupersededMessageNotCounted) {
            return left.ack.ack();
        }
        if !fault!(DroppedMessageNotCounted) {
            self.config.telemetry.dropped(why, &left.connection.id, left.ack.sequence_number());
        }
        left.ack.ack_dropped(why);
    }

    /// The connection is gone for good: its row goes, unless all of them seem to be.
    async fn handle_gone(&self, head: &InFlightMessage) {
        let DispatcherConfig { lookup, health, .. } = &self.config;
        if self.may_delete() {
            health.clear(&Component::RowDeletionGuard);
            lookup.delete_stale_row(&head.connection, head.row.clone()).await;
        } else {
            health.set_problem(
                Component::RowDeletionGuard,
                problems::all_gone(&self.config.endpoint),
            );
        }
    }

    fn may_delete(&self) -> bool {
        self.deletion_guard().may_delete(Instant::now())
    }

    /// Learns from an outcome what it says about the endpoint.
    fn record_outcome(&self, outcome: PostOutcome, connection: &Connection, pass: &mut Permit<'_>) {
        let is_answering = outcome != PostOutcome::Retry;
        let has_failed = {
            let mut failing = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
            if is_answering {
                failing.record_success();
            }
            !is_answering && failing.record_failure()
        };
        match outcome {
            // Told before it is shut, so that whoever opens it takes this back.
            PostOutcome::Hold(why) => {
                self.config.health.set_problem(
                    Component::Gateway,
                    problems::rejected(&self.config.endpoint, why),
                );
                self.breaker.trip();
            }
            PostOutcome::Delivered | PostOutcome::Gone | PostOutcome::TooLarge => {
                self.breaker.reset(pass);
                self.config.health.clear(&Component::Gateway);
            }
            PostOutcome::Retry if has_failed => {
                self.config
                    .health
                    .set_problem(Component::Gateway, problems::unavailable(&self.config.endpoint));
            }
            // It answers, whatever else is the matter.
            PostOutcome::Throttled if !self.breaker.is_open() => {
                self.config.health.clear(&Component::Gateway)
            }
            // These say nothing about rights or endpoint.
            PostOutcome::Throttled | PostOutcome::Retry => {}
        }
        match outcome {
            PostOutcome::Delivered => {
                self.deletion_guard().record_delivery(Instant::now());
                self.config.health.clear(&Component::RowDeletionGuard);
            }
            PostOutcome::Gone => self.deletion_guard().record_gone(&connection.id, Instant::now()),
            _ => {}
        }
    }

    fn deletion_guard(&self) -> std::sync::MutexGuard<'_, MassDeletionGuard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
