//! A connections table whose rows a test writes down.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use stream_notifier::delivery::{
    Connections, ConnectionsError, ConnectionsErrorKind, RowPage, TableDescription,
};
use stream_notifier::record::{AttributeValue, Item, KeyNames};

/// A table with the key `connection_id` and an index on `sk`.
#[derive(Debug)]
pub struct ScriptedConnections {
    rows: Mutex<Vec<Item>>,
    rows_on_a_page: usize,
    queries: AtomicUsize,
    fault: Mutex<Option<ConnectionsErrorKind>>,
    has_index: AtomicBool,
    key_type: Mutex<&'static str>,
}

impl ScriptedConnections {
    /// An empty table, whose pages hold this many rows.
    pub fn new(rows_on_a_page: usize) -> Self {
        Self {
            rows: Mutex::default(),
            rows_on_a_page,
            queries: AtomicUsize::new(0),
            fault: Mutex::default(),
            has_index: AtomicBool::new(true),
            key_type: Mutex::new("S"),
        }
    }

    /// Stores the row of a connection that has none yet.
    pub fn put_new(&self, connection: &str, sk: &str) {
        self.put_row(row(connection, sk, "2026-01-01"));
    }

    /// Stores a connection's row, in place of an earlier one.
    pub fn put(&self, connection: &str, sk: &str, created_at: &str) {
        let row = row(connection, sk, created_at);
        let mut rows = self.rows.lock().unwrap();
        rows.retain(|other| other.get("connection_id") != row.get("connection_id"));
        rows.push(row);
    }

    /// Stores a row as it is.
    pub fn put_row(&self, row: Item) {
        self.rows.lock().unwrap().push(row);
    }

    /// The connections stored.
    pub fn stored(&self) -> Vec<String> {
        let id = |row: &Item| match row.get("connection_id") {
            Some(AttributeValue::S(id)) => Some(id.clone()),
            _ => None,
        };
        self.rows.lock().unwrap().iter().filter_map(id).collect()
    }

    /// How many pages were asked.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }

    /// Every call fails like this, until told otherwise.
    pub fn fail(&self, kind: Option<ConnectionsErrorKind>) {
        *self.fault.lock().unwrap() = kind;
    }

    /// The type of the key that is asked: `S`, `N` or `B`.
    pub fn set_key_type(&self, kind: &'static str) {
        *self.key_type.lock().unwrap() = kind;
    }

    /// Takes the index away, or brings it back.
    pub fn set_index(&self, there: bool) {
        self.has_index.store(there, Ordering::Relaxed);
    }

    /// What every query without an index is answered with, as by DynamoDB.
    fn check_index(&self) -> Result<(), ConnectionsError> {
        let there = self.has_index.load(Ordering::Relaxed);
        there.then_some(()).ok_or(ConnectionsError {
            action: "dynamodb:Query",
            kind: ConnectionsErrorKind::Invalid,
            source: None,
        })
    }

    fn check(&self) -> Result<(), ConnectionsError> {
        match *self.fault.lock().unwrap() {
            Some(kind) => Err(ConnectionsError { action: "dynamodb:Scripted", kind, source: None }),
            None => Ok(()),
        }
    }
}

fn row(connection: &str, sk: &str, created_at: &str) -> Item {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    Item::from([
        ("connection_id".to_owned(), text(connection)),
        ("sk".to_owned(), text(sk)),
        ("created_at".to_owned(), text(created_at)),
    ])
}

impl Connections for ScriptedConnections {
    async fn describe(&self) -> Result<TableDescription, ConnectionsError> {
        self.check()?;
        let key = |name: &str| KeyNames { partition: name.to_owned(), sort: None };
        Ok(TableDescription {
            keys: key("connection_id"),
            indexes: if self.has_index.load(Ordering::Relaxed) {
                vec![("sk-index".to_owned(), key("sk"))]
            } else {
                vec![]
            },
            types: [("connection_id", "S"), ("sk", *self.key_type.lock().unwrap())]
                .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
                .into(),
        })
    }

    async fn query(
        &self,
        value: &AttributeValue,
        start: Option<&Item>,
    ) -> Result<RowPage, ConnectionsError> {
        self.queries.fetch_add(1, Ordering::Relaxed);
        self.check_index()?;
        if *self.fault.lock().unwrap() == Some(ConnectionsErrorKind::Invalid) {
            return Err(ConnectionsError {
                action: "dynamodb:Query",
                kind: ConnectionsErrorKind::Invalid,
                source: None,
            });
        }
        self.check()?;
        let rows = self.rows.lock().unwrap();
        let found: Vec<_> = rows.iter().filter(|row| row.get("sk") == Some(value)).collect();
        let begin = start.map_or(0, |start| {
            found
                .iter()
                .position(|row| row.get("connection_id") == start.get("connection_id"))
                .unwrap()
                + 1
        });
        let page: Vec<Item> =
            found[begin..].iter().take(self.rows_on_a_page).map(|row| (*row).clone()).collect();
        let more = begin + page.len() < found.len();
        Ok(RowPage { next: page.last().filter(|_| more).cloned(), rows: page })
    }

    async fn delete_unchanged(&self, _: &KeyNames, row: &Item) -> Result<bool, ConnectionsError> {
        self.check()?;
        let mut rows = self.rows.lock().unwrap();
        let before = rows.len();
        rows.retain(|other| other != row);
        Ok(rows.len() < before)
    }
}
