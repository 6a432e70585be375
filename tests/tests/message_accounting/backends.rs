//! Backends of a run: a gateway whose connections behave as scripted, a table that records lookups, and
//! a log subscriber that records drops.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use stream_notifier::delivery::{
    ConnectionsError, ConnectionsTable, Gateway, PostResponse, RowPage, Segment, TableDescription,
};
use stream_notifier::model::{AttributeValue, Item, KeySchema};
use stream_notifier_tests::fakes::FakeConnections;
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// The behavior of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behavior {
    Responsive,
    /// It rejects each message with 429, because its buffer is full.
    BufferFull,
    Failing,
    /// It receives the message, and the response is lost.
    ResponseLost,
    /// It receives nothing, and each post ends with the timeout of the client.
    Hanging,
    Closed,
}

pub const BEHAVIORS: [Behavior; 6] = [
    Behavior::Responsive,
    Behavior::BufferFull,
    Behavior::Failing,
    Behavior::ResponseLost,
    Behavior::Hanging,
    Behavior::Closed,
];

#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub group: usize,
    pub behavior: Behavior,
    /// Whether it had no other behavior before.
    pub was_always_responsive: bool,
    /// The records that it received a message about, in order.
    pub received: Vec<u32>,
    pub has_post_in_flight: bool,
    pub was_disconnected: bool,
}

/// Observations by the gateway, the table and the log subscriber.
#[derive(Debug, Default)]
pub struct Observations {
    pub clients: Vec<Client>,
    /// Whether each post is rejected with 403.
    pub is_forbidden: bool,
    pub in_flight: usize,
    pub max_in_flight: usize,
    pub has_concurrent_posts: bool,
    /// The connections that each lookup of a group found, in order.
    pub lookups: BTreeMap<usize, Vec<Vec<usize>>>,
    /// The reason of each dropped message, by connection and record.
    pub dropped: BTreeMap<(usize, u32), String>,
}

pub type SharedObservations = Arc<Mutex<Observations>>;

pub fn id(client: usize) -> String {
    // Logs contain the start of an id, which identifies the client.
    format!("{client:06}L0SM9cOFvHc=")
}

pub fn client(id: &str) -> usize {
    id[..6].parse().unwrap()
}

pub fn group(value: &AttributeValue) -> usize {
    let AttributeValue::S(text) = value else { panic!("{value:?}") };
    text.strip_prefix("group-").unwrap().parse().unwrap()
}

/// A gateway whose connections behave as scripted.
#[derive(Debug)]
pub struct ScriptedGateway(pub SharedObservations);

impl Gateway for ScriptedGateway {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let number = client(connection);
            let message: serde_json::Value = serde_json::from_slice(message).unwrap();
            let record: u32 = message["value"].as_str().unwrap().parse().unwrap();
            let (behavior, is_forbidden) = {
                let observed = &mut *self.0.lock().unwrap();
                observed.in_flight += 1;
                observed.max_in_flight = observed.max_in_flight.max(observed.in_flight);
                observed.has_concurrent_posts |=
                    std::mem::replace(&mut observed.clients[number].has_post_in_flight, true);
                (observed.clients[number].behavior, observed.is_forbidden)
            };
            sleep(Duration::from_millis(if behavior == Behavior::Hanging { 15_000 } else { 20 }))
                .await;
            let observed = &mut *self.0.lock().unwrap();
            observed.in_flight -= 1;
            let client = &mut observed.clients[number];
            client.has_post_in_flight = false;
            if !is_forbidden && matches!(behavior, Behavior::Responsive | Behavior::ResponseLost) {
                client.received.push(record);
            }
            let status = |status| PostResponse::Status { status, mentions_connection_id: false };
            match behavior {
                _ if is_forbidden => status(403),
                Behavior::Responsive => status(200),
                Behavior::BufferFull => status(429),
                Behavior::Failing => status(500),
                Behavior::ResponseLost | Behavior::Hanging => PostResponse::NoResponse,
                Behavior::Closed => status(410),
            }
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let client = &mut self.0.lock().unwrap().clients[client(connection)];
            (client.was_disconnected, client.behavior) = (true, Behavior::Closed);
            PostResponse::Status { status: 204, mentions_connection_id: false }
        })
    }
}

/// A table that records what each lookup found.
#[derive(Debug)]
pub struct RecordingTable(pub FakeConnections, pub SharedObservations);

impl ConnectionsTable for RecordingTable {
    fn describe(&self) -> BoxFuture<'_, Result<TableDescription, ConnectionsError>> {
        self.0.describe()
    }

    fn query<'a>(
        &'a self,
        value: &'a AttributeValue,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        Box::pin(async move {
            let page = self.0.query(value, attributes, start).await?;
            let id = |row: &Item| match row.get("connection_id") {
                Some(AttributeValue::S(id)) => client(id),
                other => panic!("{other:?}"),
            };
            let found = page.rows.iter().map(id).collect();
            self.1.lock().unwrap().lookups.entry(group(value)).or_default().push(found);
            Ok(page)
        })
    }

    fn scan<'a>(
        &'a self,
        segment: Segment,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        self.0.scan(segment, attributes, start)
    }

    fn get<'a>(&'a self, key: &'a Item) -> BoxFuture<'a, Result<Option<Item>, ConnectionsError>> {
        self.0.get(key)
    }

    fn delete_if_unchanged<'a>(
        &'a self,
        keys: &'a KeySchema,
        row: &'a Item,
    ) -> BoxFuture<'a, Result<bool, ConnectionsError>> {
        self.0.delete_if_unchanged(keys, row)
    }
}

/// A log subscriber that records dropped messages.
pub struct DropRecorder(pub SharedObservations);

#[derive(Default)]
pub struct DropEvent {
    connection: String,
    sequence_number: String,
    reason: String,
}

impl Visit for DropEvent {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = match field.name() {
            "connection" => &mut self.connection,
            "sequence_number" => &mut self.sequence_number,
            "reason" => &mut self.reason,
            _ => return,
        };
        *text = format!("{value:?}").trim_matches('"').to_owned();
    }
}

impl Subscriber for DropRecorder {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let has_field = |name| metadata.fields().field(name).is_some();
        has_field("reason") && has_field("connection") && !has_field("suppressed")
    }

    fn event(&self, event: &Event<'_>) {
        let mut dropped = DropEvent::default();
        event.record(&mut dropped);
        let record = dropped.sequence_number[1..].parse().unwrap();
        let message = (client(&dropped.connection), record);
        let before = self.0.lock().unwrap().dropped.insert(message, dropped.reason);
        assert_eq!(before, None, "{message:?} was dropped twice");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
