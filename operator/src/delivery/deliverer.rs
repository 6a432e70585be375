//! Posts messages: to one connection in order, to different ones side by side, each until it has an
//! outcome.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::gate::{Gate, Pass};
use super::guard::Guard;
use super::outbox::{Delivery, Outbox, Queue};
use super::outcome::{Hold, Outcome, outcome};
use super::settle::Ticket;
use super::{Connection, Connections, Gateway, Lookup};
use crate::backoff::{Backoff, Failing, Random};
use crate::record::Item;
use crate::telemetry::{Dropped, Health, NotifierTelemetry, Part, Trouble};

/// How long a message is tried, not counting the time at a shut gate.
const LONGEST_TRY: Duration = Duration::from_secs(300);

/// When a connection that seems gone is asked again: its row may have been written inside
/// `$connect`, just before it is established.
const GONE_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Posts the messages of one notifier.
#[derive(Debug)]
pub struct Deliverer<C, G> {
    lookup: Arc<Lookup<C>>,
    gateway: Arc<G>,
    /// The endpoint, named in conditions.
    endpoint: String,
    outbox: Outbox,
    gate: Gate,
    guard: Mutex<Guard>,
    /// Whether, and since when, no post has had a usable answer.
    failing: Mutex<Failing>,
    health: Arc<Health>,
    telemetry: NotifierTelemetry,
    random: Arc<Random>,
}

impl<C: Connections, G: Gateway> Deliverer<C, G> {
    /// A deliverer with this outbox.
    pub fn new(
        lookup: Arc<Lookup<C>>,
        gateway: Arc<G>,
        endpoint: String,
        outbox: Outbox,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        random: Arc<Random>,
    ) -> Self {
        Self {
            lookup,
            gateway,
            endpoint,
            outbox,
            gate: Gate::new(random.clone()),
            guard: Mutex::default(),
            failing: Mutex::new(Failing::new(Duration::ZERO)),
            health,
            telemetry,
            random,
        }
    }

    /// Queues a message for each of these connections, and settles the ticket once each has an
    /// outcome. Returns when all are queued.
    pub async fn send(
        self: &Arc<Self>,
        connections: Vec<Arc<Connection>>,
        message: &Bytes,
        ticket: Ticket,
    ) {
        for connection in connections {
            let this = self.clone();
            let drain = |queue| async move { this.drain(queue).await };
            let (message, share, now) = (message.clone(), ticket.share(), self.gate.clock());
            self.outbox.send(connection, message, share, now, drain).await;
        }
        ticket.settle();
    }

    /// Empties one connection's queue.
    async fn drain(&self, queue: Queue) {
        let mut gone = false;
        while let Some(delivery) = queue.next() {
            // What was queued behind a connection's end is for nobody.
            if gone {
                self.telemetry.gone();
            } else {
                gone = self.deliver(&delivery).await;
            }
            delivery.ticket.settle();
        }
    }

    /// Posts one message until it has an outcome; `true` if its connection is gone.
    async fn deliver(&self, delivery: &Delivery) -> bool {
        let connection = &delivery.connection;
        let mut gone_again = GONE_AGAIN_AFTER.iter();
        let mut row = None;
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        loop {
            let wait = match self.post(delivery).await {
                Outcome::Delivered => {
                    self.telemetry.delivered();
                    return false;
                }
                Outcome::Gone => match gone_again.next() {
                    Some(wait) => *wait,
                    None => {
                        self.gone(connection, row.as_ref()).await;
                        return true;
                    }
                },
                Outcome::TooLarge => {
                    self.dropped(Dropped::TooLarge, delivery);
                    return false;
                }
                Outcome::Throttled | Outcome::Retry if self.age(delivery) >= LONGEST_TRY => {
                    self.dropped(Dropped::Expired, delivery);
                    return false;
                }
                Outcome::Hold(_) | Outcome::Throttled | Outcome::Retry => {
                    backoff.next(&self.random)
                }
            };
            sleep(wait).await;
            if row.is_none() && gone_again.as_slice().is_empty() && self.may_delete() {
                row = self.lookup.row(connection).await;
            }
        }
    }

    /// How long a message has waited while posts got through.
    fn age(&self, delivery: &Delivery) -> Duration {
        self.gate.clock().saturating_sub(delivery.queued_at)
    }

    /// One post, once it may leave.
    async fn post(&self, delivery: &Delivery) -> Outcome {
        // A place first: whoever has passed the gate posts at once.
        let _post = self.outbox.post().await;
        let mut pass = self.gate.pass().await;
        let answer = self.gateway.post(&delivery.connection.id, &delivery.message).await;
        let outcome = outcome(&answer);
        self.telemetry.posted(outcome.word());
        self.note(outcome, &delivery.connection, &mut pass);
        outcome
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
                self.health.troubled(Part::Gateway, self.held(why));
                self.gate.shut();
            }
            Outcome::Delivered | Outcome::Gone | Outcome::TooLarge => {
                self.gate.unlock(pass);
                self.health.well(&Part::Gateway);
            }
            Outcome::Retry if has_failed => {
                self.health.troubled(Part::Gateway, self.failed());
            }
            // It answers, whatever else is the matter.
            Outcome::Throttled if !self.gate.is_shut() => self.health.well(&Part::Gateway),
            // These say nothing about rights or endpoint.
            Outcome::Throttled | Outcome::Retry => {}
        }
        match outcome {
            Outcome::Delivered => {
                self.guard().delivered(Instant::now());
                self.health.well(&Part::Rows);
            }
            Outcome::Gone => self.guard().gone(&connection.id, Instant::now()),
            _ => {}
        }
    }

    /// The connection is gone for good: its row goes, unless all of them seem to be.
    async fn gone(&self, connection: &Connection, row: Option<&Item>) {
        self.telemetry.gone();
        if self.may_delete() {
            self.health.well(&Part::Rows);
            self.lookup.delete(connection, row).await;
        } else {
            self.health.troubled(Part::Rows, self.all_gone());
        }
    }

    fn may_delete(&self) -> bool {
        self.guard().may_delete(Instant::now())
    }

    fn dropped(&self, why: Dropped, delivery: &Delivery) {
        self.telemetry.dropped(why, &delivery.connection.id, delivery.ticket.number());
    }

    fn guard(&self) -> std::sync::MutexGuard<'_, Guard> {
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self, why: Hold) -> Trouble {
        let endpoint = &self.endpoint;
        let (reason, message) = match why {
            Hold::Forbidden => (
                "GatewayForbidden",
                format!(
                    "posting to {endpoint} is forbidden: allow execute-api:ManageConnections on it, and check webSocket.domain and webSocket.stage"
                ),
            ),
            Hold::WrongEndpoint => (
                "GatewayMisconfigured",
                format!(
                    "{endpoint} does not answer as a WebSocket API does: check webSocket.domain and webSocket.stage"
                ),
            ),
            Hold::Unreachable => (
                "GatewayUnreachable",
                format!("no connection to {endpoint}: check webSocket.domain and the network"),
            ),
            Hold::NoCredentials => (
                "NoCredentials",
                format!("there are no AWS credentials to sign posts to {endpoint} with"),
            ),
        };
        Trouble { reason, message, stalled: why != Hold::Unreachable }
    }

    fn failed(&self) -> Trouble {
        let message = format!(
            "{} has given no usable answer for a minute; messages are given up after five",
            self.endpoint
        );
        Trouble { reason: "GatewayUnavailable", message, stalled: false }
    }

    fn all_gone(&self) -> Trouble {
        Trouble {
            reason: "AllConnectionsGone",
            message: format!(
                "every connection posted to at {} in the last minute is gone, so no more rows are deleted: check webSocket.domain and webSocket.stage",
                self.endpoint
            ),
            stalled: true,
        }
    }
}
