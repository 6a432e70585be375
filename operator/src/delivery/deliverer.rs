//! Posts messages: to one connection in order, to different ones side by side, each until it has an
//! outcome.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};

use super::gate::{Gate, Pass};
use super::guard::Guard;
use super::outbox::{Connection, Delivery, Outbox, Queue, Tasks};
use super::outcome::{Hold, Outcome, outcome};
use super::settle::Ticket;
use super::{Connections, Gateway, Lookup};
use crate::backoff::{Backoff, Random};
use crate::telemetry::{Drop, Health, NotifierTelemetry, Part, Trouble};

/// Posts under way at once, for one notifier.
const MOST_POSTS: usize = 256;

/// How long a message is tried while the endpoint itself works.
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
    posts: Semaphore,
    health: Arc<Health>,
    telemetry: NotifierTelemetry,
    random: Arc<Random>,
}

impl<C: Connections, G: Gateway> Deliverer<C, G> {
    /// A deliverer whose posts run as tasks of `tasks`.
    pub fn new(
        lookup: Arc<Lookup<C>>,
        gateway: Arc<G>,
        endpoint: String,
        tasks: Tasks,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        random: Arc<Random>,
    ) -> Self {
        Self {
            lookup,
            gateway,
            endpoint,
            outbox: Outbox::new(tasks),
            gate: Gate::new(random.clone()),
            guard: Mutex::default(),
            posts: Semaphore::new(MOST_POSTS),
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
            self.outbox.send(connection, message.clone(), ticket.share(), drain).await;
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
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(10));
        let mut trying_since = Instant::now();
        loop {
            match self.post(delivery).await {
                Outcome::Delivered => {
                    self.telemetry.delivered();
                    return false;
                }
                Outcome::Gone => match gone_again.next() {
                    Some(wait) => sleep(*wait).await,
                    None => {
                        self.gone(connection).await;
                        return true;
                    }
                },
                Outcome::TooLarge => {
                    self.dropped(Drop::TooLarge, delivery);
                    return false;
                }
                // Time spent at a shut gate is not the message's.
                Outcome::Hold(_) => trying_since = Instant::now(),
                Outcome::Throttled | Outcome::Retry => {
                    if trying_since.elapsed() >= LONGEST_TRY {
                        self.dropped(Drop::Expired, delivery);
                        return false;
                    }
                    sleep(backoff.next(&self.random)).await;
                }
            }
        }
    }

    /// One post, once it may leave.
    async fn post(&self, delivery: &Delivery) -> Outcome {
        let mut pass = self.gate.pass().await;
        let outcome = {
            // Never closed, so that this cannot fail.
            let _post = self.posts.acquire().await;
            outcome(&self.gateway.post(&delivery.connection.id, &delivery.message).await)
        };
        self.telemetry.posted(outcome.word());
        self.note(outcome, &delivery.connection, &mut pass);
        outcome
    }

    /// Learns from an outcome what it says about the endpoint.
    fn note(&self, outcome: Outcome, connection: &Connection, pass: &mut Pass<'_>) {
        match outcome {
            Outcome::Hold(why) => {
                self.gate.shut();
                self.health.troubled(Part::Gateway, self.held(why));
            }
            Outcome::Delivered | Outcome::Gone | Outcome::TooLarge => {
                if self.gate.unlock(pass) {
                    self.health.well(&Part::Gateway);
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
            // These say nothing about rights or endpoint.
            Outcome::Throttled | Outcome::Retry => {}
        }
    }

    /// The connection is gone for good: its row goes, unless all of them seem to be.
    async fn gone(&self, connection: &Connection) {
        self.telemetry.gone();
        if self.guard().may_delete(Instant::now()) {
            self.lookup.delete(connection).await;
        } else {
            self.health.troubled(Part::Rows, self.all_gone());
        }
    }

    fn dropped(&self, why: Drop, delivery: &Delivery) {
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
        };
        Trouble { reason, message, stalled: why != Hold::Unreachable }
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
