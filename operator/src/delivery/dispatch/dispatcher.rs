//! Posts messages: to one connection in order, to different ones side by side, each until it has an
//! outcome.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::circuit_breaker::{Gate, Pass};
use super::connection_queues::{Head, Left, Outbox};
use super::mass_deletion_guard::Guard;
use super::outcome::{Hold, Outcome, outcome};
use super::post_rate_limiter::PostLimits;
use super::problems;
use super::retry::{End, Known, Next};
use crate::delivery::ack::Ticket;
use crate::delivery::config::{Bounds, Policy, SlowClient};
use crate::delivery::gateway::Gateway;
use crate::delivery::lookup::Lookup;
use crate::delivery::lookup::row::Connection;
use crate::delivery::message::{LONGEST, Message};
use crate::delivery::task_group::Tasks;
use crate::telemetry::{Dropped, Health, NotifierTelemetry, Part};
use crate::timing::{Failing, Random, ServiceClock};

/// Who posts for a notifier, and by which rules.
#[derive(Debug)]
pub struct Setup {
    /// Where connections are stored.
    pub lookup: Arc<Lookup>,
    /// The WebSocket API.
    pub gateway: Arc<dyn Gateway>,
    /// Its endpoint, named in conditions.
    pub endpoint: String,
    /// What is done about messages that do not get through.
    pub policy: Policy,
    /// How fast all notifiers may post together.
    pub limits: Arc<PostLimits>,
    /// How much may be under way at once.
    pub bounds: Bounds,
    /// The tasks that post.
    pub tasks: Tasks,
    /// Where troubles are told.
    pub health: Arc<Health>,
    /// Where events are told.
    pub telemetry: NotifierTelemetry,
    /// What spreads the waits.
    pub random: Arc<Random>,
}

/// Posts the messages of one notifier.
#[derive(Debug)]
pub struct Deliverer {
    setup: Setup,
    outbox: Outbox,
    gate: Gate,
    guard: Mutex<Guard>,
    /// Whether, and since when, no post has had a usable answer.
    failing: Mutex<Failing>,
    /// The service's clock.
    clock: Arc<ServiceClock>,
    /// How many messages were delivered.
    delivered: AtomicU64,
}

impl Deliverer {
    /// A deliverer with an empty outbox.
    pub fn new(setup: Setup, clock: Arc<ServiceClock>) -> Self {
        Self {
            outbox: Outbox::new(&setup.bounds, setup.telemetry.clone()),
            gate: Gate::new(setup.random.clone()),
            guard: Mutex::default(),
            failing: Mutex::new(Failing::new(Duration::ZERO)),
            clock,
            delivered: AtomicU64::new(0),
            setup,
        }
    }

    /// Queues a message for each of these connections, and settles the ticket once each has an
    /// outcome. Returns when all are queued.
    pub async fn send(
        self: &Arc<Self>,
        connections: Vec<Arc<Connection>>,
        message: Message,
        ticket: Ticket,
    ) {
        let message = Arc::new(message);
        let conflates = self.setup.policy.slow_client == SlowClient::Drop;
        for connection in connections {
            let share = ticket.share();
            let gone = self.outbox.send(&connection, &message, share, &self.gate, conflates).await;
            for (why, left) in gone {
                self.lose(left, why);
            }
            self.clone().post_more();
        }
        ticket.settle();
    }

    /// Begins another task that posts, if one is wanted.
    fn post_more(self: Arc<Self>) {
        if self.outbox.wants_poster() {
            let tasks = self.setup.tasks.clone();
            tasks.spawn(self.post_all());
        }
    }

    /// Posts what is ready, until there is nothing more. Boxed, because it begins others like itself.
    fn post_all(self: Arc<Self>) -> BoxFuture<'static, ()> {
        async move {
            while let Some(mut head) = self.outbox.take() {
                let next = self.attempt(&mut head).await;
                // Its place is taken until here, so that what it leaves to do is done by others too.
                self.clone().post_more();
                match next {
                    Next::Over(end) => self.end(head, end).await,
                    Next::Again(wait) => self.again(head, wait, false),
                    Next::Held(wait) => self.again(head, wait, true),
                }
            }
        }
        .boxed()
    }

    /// Tries a message again after a while.
    fn again(self: &Arc<Self>, head: Head, wait: Duration, was_held: bool) {
        let Some(id) = self.outbox.park(head, was_held) else {
            return;
        };
        let this = self.clone();
        self.setup.tasks.spawn(async move {
            if !wait.is_zero() {
                sleep(wait).await;
            }
            this.outbox.wake(id);
            this.post_more();
        });
    }

    /// One try, and what follows from it.
    async fn attempt(&self, head: &mut Head) -> Next {
        let policy = &self.setup.policy;
        let age = self.gate.clock().saturating_sub(head.queued_at);
        if head.is_in_vain && head.tries.is_over(age, policy) {
            return Next::Over(End::Dropped(Dropped::Expired));
        }
        if head.tries.is_nearly_gone() && self.may_delete() {
            // Before the gateway has the last word, see the lookup.
            head.row = self.setup.lookup.row(&head.connection).await;
        }
        let short = head.message.keys_only.as_ref().filter(|_| head.tries.is_short());
        let body = short.unwrap_or(&head.message.body).clone();
        let outcome = match body.len() {
            0..=LONGEST => self.post(head, &body).await,
            _ => Outcome::TooLarge,
        };
        let known = Known {
            age: self.gate.clock().saturating_sub(head.queued_at),
            can_shorten: head.message.keys_only.is_some(),
            is_account_throttled: self.is_account_throttled(outcome, &head.connection),
            delivered: self.delivered.load(Ordering::Relaxed),
        };
        match head.tries.next(outcome, policy, &known, &self.setup.random) {
            Next::Over(End::Disconnect) => self.disconnect(head).await,
            next => next,
        }
    }

    /// Whether it is the account that is throttled, as the outcomes of all posts tell.
    fn is_account_throttled(&self, outcome: Outcome, connection: &Connection) -> bool {
        match outcome {
            Outcome::Throttled => self.setup.limits.answered(&connection.id, true),
            Outcome::Delivered | Outcome::Gone => self.setup.limits.answered(&connection.id, false),
            // These say nothing of it.
            Outcome::TooLarge | Outcome::Hold(_) | Outcome::Retry => false,
        }
    }

    /// Disconnects a client that does not read; if that fails, its message is tried again.
    async fn disconnect(&self, head: &mut Head) -> Next {
        let Setup { lookup, gateway, limits, health, telemetry, random, .. } = &self.setup;
        head.row = lookup.row(&head.connection).await;
        telemetry.post_waited(limits.take().await);
        let _pass = self.gate.pass().await;
        let outcome = outcome(&gateway.disconnect(&head.connection.id).await);
        telemetry.disconnected(&head.connection.id, outcome.word());
        match outcome {
            Outcome::Delivered | Outcome::Gone => {
                health.well(&Part::Disconnection);
                return Next::Over(End::Disconnect);
            }
            Outcome::Hold(Hold::Forbidden) => {
                health
                    .warned(Part::Disconnection, problems::disconnect_denied(&self.setup.endpoint));
            }
            _ => {}
        }
        if fault!(RowDeletedAfterFailedDisconnect) {
            return Next::Over(End::Disconnect);
        }
        Next::Again(head.tries.wait(random))
    }

    /// One post, once it may leave.
    async fn post(&self, head: &Head, body: &Bytes) -> Outcome {
        let connection = &head.connection;
        let Setup { limits, gateway, telemetry, .. } = &self.setup;
        telemetry.post_waited(limits.take().await);
        let mut pass = self.gate.pass().await;
        self.outbox.leaves(head);
        let begun = Instant::now();
        let answer = gateway.post(&connection.id, body).await;
        let outcome = outcome(&answer);
        let took = begun.elapsed();
        telemetry.posted(outcome.word(), took);
        self.outbox.answered(took, !matches!(outcome, Outcome::Retry));
        self.note(outcome, connection, &mut pass);
        outcome
    }

    /// A message is over.
    async fn end(&self, head: Head, end: End) {
        let telemetry = &self.setup.telemetry;
        match end {
            End::Delivered => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                let created = head.message.created;
                if let Some(left) = self.outbox.finish(head, true) {
                    telemetry.delivered(self.clock.now().0.saturating_sub(created.0));
                    left.ticket.settle();
                }
            }
            End::Dropped(why) => {
                let is_in_vain = why != Dropped::TooLarge;
                if let Some(left) = self.outbox.finish(head, !is_in_vain) {
                    self.lose(left, why);
                }
            }
            // What was queued behind a connection's end is for nobody.
            End::Gone => {
                self.gone(&head).await;
                for left in self.outbox.finish_all(head) {
                    telemetry.gone();
                    left.ticket.settle();
                }
            }
            End::Disconnect => {
                self.setup.lookup.delete(&head.connection, head.row.clone()).await;
                for left in self.outbox.finish_all(head) {
                    self.lose(left, Dropped::Disconnected);
                }
            }
        }
    }

    /// A message is given up.
    fn lose(&self, left: Left, why: Dropped) {
        if why == Dropped::Superseded && fault!(SupersededMessageNotCounted) {
            return left.ticket.settle();
        }
        if !fault!(DroppedMessageNotCounted) {
            self.setup.telemetry.dropped(why, &left.connection.id, left.ticket.number());
        }
        left.ticket.lose(why);
    }

    /// The connection is gone for good: its row goes, unless all of them seem to be.
    async fn gone(&self, head: &Head) {
        let Setup { lookup, health, .. } = &self.setup;
        if self.may_delete() {
            health.well(&Part::Rows);
            lookup.delete(&head.connection, head.row.clone()).await;
        } else {
            health.troubled(Part::Rows, problems::all_gone(&self.setup.endpoint));
        }
    }

    fn may_delete(&self) -> bool {
        self.guard().may_delete(Instant::now())
    }

    /// Learns from an outcome what it says about the endpoint.
    fn note(&self, outcome: Outcome, connection: &Connection, pass: &mut Pass<'_>) {
        let is_answering = outcome != Outcome::Retry;
        let has_failed = {
            let mut failing = self.failing.lock().unwrap_or_else(PoisonError::into_inner);
            if is_answering {
                failing.worked();
            }
            !is_answering && failing.has_lasted()
        };
        match outcome {
            // Told before it is shut, so that whoever opens it takes this back.
            Outcome::Hold(why) => {
                self.setup
                    .health
                    .troubled(Part::Gateway, problems::rejected(&self.setup.endpoint, why));
                self.gate.shut();
            }
            Outcome::Delivered | Outcome::Gone | Outcome::TooLarge => {
                self.gate.unlock(pass);
                self.setup.health.well(&Part::Gateway);
            }
            Outcome::Retry if has_failed => {
                self.setup
                    .health
                    .troubled(Part::Gateway, problems::unavailable(&self.setup.endpoint));
            }
            // It answers, whatever else is the matter.
            Outcome::Throttled if !self.gate.is_shut() => self.setup.health.well(&Part::Gateway),
            // These say nothing about rights or endpoint.
            Outcome::Throttled | Outcome::Retry => {}
        }
        match outcome {
            Outcome::Delivered => {
                self.guard().delivered(Instant::now());
                self.setup.health.well(&Part::Rows);
            }
            Outcome::Gone => self.guard().gone(&connection.id, Instant::now()),
            _ => {}
        }
    }

    fn guard(&self) -> std::sync::MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
