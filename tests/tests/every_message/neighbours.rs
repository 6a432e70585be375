//! What the runs talk to: connections in their moods, a table that remembers what it was asked, and
//! whoever hears what is given up.

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

/// How a connection answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    Well,
    /// Its buffer is full.
    Full,
    Failing,
    /// It has the message, and its answer is lost.
    Mute,
    /// Nothing arrives, and there is no answer for as long as the client waits.
    Hanging,
    Gone,
}

pub const MOODS: [Mood; 6] =
    [Mood::Well, Mood::Full, Mood::Failing, Mood::Mute, Mood::Hanging, Mood::Gone];

#[derive(Clone, Debug)]
pub struct Client {
    pub id: String,
    pub group: usize,
    pub mood: Mood,
    /// Whether it never was anything but well.
    pub is_always_well: bool,
    /// The changes that it was told of, in order.
    pub received: Vec<u32>,
    pub is_posted_to: bool,
    pub disconnected: bool,
}

/// What the gateway, the table and the log have seen.
#[derive(Debug, Default)]
pub struct Seen {
    pub clients: Vec<Client>,
    /// Whether nobody may post.
    pub is_forbidden: bool,
    pub under_way: usize,
    pub most_under_way: usize,
    pub two_for_one: bool,
    /// By group, what each lookup found, in order.
    pub found: BTreeMap<usize, Vec<Vec<usize>>>,
    /// Connection and change of what was given up, and why.
    pub dropped: BTreeMap<(usize, u32), String>,
}

pub type Shared = Arc<Mutex<Seen>>;

pub fn id(client: usize) -> String {
    // What logs have of an id is enough to tell them apart.
    format!("{client:06}L0SM9cOFvHc=")
}

pub fn client(id: &str) -> usize {
    id[..6].parse().unwrap()
}

pub fn group(value: &AttributeValue) -> usize {
    let AttributeValue::S(text) = value else { panic!("{value:?}") };
    text.strip_prefix("group-").unwrap().parse().unwrap()
}

/// Connections in their moods.
#[derive(Debug)]
pub struct Moody(pub Shared);

impl Gateway for Moody {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let to = client(connection);
            let message: serde_json::Value = serde_json::from_slice(message).unwrap();
            let change: u32 = message["value"].as_str().unwrap().parse().unwrap();
            let (mood, is_forbidden) = {
                let seen = &mut *self.0.lock().unwrap();
                seen.under_way += 1;
                seen.most_under_way = seen.most_under_way.max(seen.under_way);
                seen.two_for_one |= std::mem::replace(&mut seen.clients[to].is_posted_to, true);
                (seen.clients[to].mood, seen.is_forbidden)
            };
            sleep(Duration::from_millis(if mood == Mood::Hanging { 15_000 } else { 20 })).await;
            let seen = &mut *self.0.lock().unwrap();
            seen.under_way -= 1;
            let client = &mut seen.clients[to];
            client.is_posted_to = false;
            if !is_forbidden && matches!(mood, Mood::Well | Mood::Mute) {
                client.received.push(change);
            }
            let status = |status| PostResponse::Status { status, names_connection: false };
            match mood {
                _ if is_forbidden => status(403),
                Mood::Well => status(200),
                Mood::Full => status(429),
                Mood::Failing => status(500),
                Mood::Mute | Mood::Hanging => PostResponse::NoResponse,
                Mood::Gone => status(410),
            }
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let client = &mut self.0.lock().unwrap().clients[client(connection)];
            (client.disconnected, client.mood) = (true, Mood::Gone);
            PostResponse::Status { status: 204, names_connection: false }
        })
    }
}

/// A table that remembers what each lookup found.
#[derive(Debug)]
pub struct Remembering(pub FakeConnections, pub Shared);

impl ConnectionsTable for Remembering {
    fn describe(&self) -> BoxFuture<'_, Result<TableDescription, ConnectionsError>> {
        Box::pin(async move { self.0.describe().await })
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
            self.1.lock().unwrap().found.entry(group(value)).or_default().push(found);
            Ok(page)
        })
    }

    fn scan<'a>(
        &'a self,
        segment: Segment,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        Box::pin(async move { self.0.scan(segment, attributes, start).await })
    }

    fn get<'a>(&'a self, key: &'a Item) -> BoxFuture<'a, Result<Option<Item>, ConnectionsError>> {
        Box::pin(async move { self.0.get(key).await })
    }

    fn delete_if_unchanged<'a>(
        &'a self,
        keys: &'a KeySchema,
        row: &'a Item,
    ) -> BoxFuture<'a, Result<bool, ConnectionsError>> {
        Box::pin(async move { self.0.delete_if_unchanged(keys, row).await })
    }
}

/// Hears which messages are given up.
pub struct Listener(pub Shared);

#[derive(Default)]
pub struct Said {
    connection: String,
    sequence_number: String,
    why: String,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = match field.name() {
            "connection" => &mut self.connection,
            "sequence_number" => &mut self.sequence_number,
            "why" => &mut self.why,
            _ => return,
        };
        *text = format!("{value:?}").trim_matches('"').to_owned();
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let names = |name| metadata.fields().field(name).is_some();
        names("why") && names("connection") && !names("unsaid")
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Said::default();
        event.record(&mut said);
        let change = said.sequence_number[1..].parse().unwrap();
        let message = (client(&said.connection), change);
        let before = self.0.lock().unwrap().dropped.insert(message, said.why);
        assert_eq!(before, None, "{message:?} is given up twice");
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}
