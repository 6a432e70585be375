//! Fake connections table with scripted rows and errors.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use stream_notifier::delivery::{
    ConnectionsError, ConnectionsErrorKind, ConnectionsTable, RowPage, Segment, TableDescription,
};
use stream_notifier::model::{AttributeValue, Item, KeySchema};
use tokio::time::sleep;

/// A table with the key `connection_id` and the index `sk-index` on `sk`.
#[derive(Debug)]
pub struct FakeConnections {
    rows: Mutex<Vec<Item>>,
    rows_per_page: usize,
    queries: AtomicUsize,
    /// Requests by segment.
    scans: Mutex<BTreeMap<u32, usize>>,
    reads: AtomicUsize,
    latency: Mutex<Duration>,
    error: Mutex<Option<ConnectionsErrorKind>>,
    /// The value whose queries fail.
    throttled_value: Mutex<Option<AttributeValue>>,
    denies_deletes: AtomicBool,
    has_index: AtomicBool,
    key_type: Mutex<&'static str>,
}

impl FakeConnections {
    /// Creates an empty table with this number of rows per page.
    pub fn new(rows_per_page: usize) -> Self {
        Self {
            rows: Mutex::default(),
            rows_per_page,
            queries: AtomicUsize::new(0),
            scans: Mutex::default(),
            reads: AtomicUsize::new(0),
            latency: Mutex::default(),
            error: Mutex::default(),
            throttled_value: Mutex::default(),
            denies_deletes: AtomicBool::new(false),
            has_index: AtomicBool::new(true),
            key_type: Mutex::new("S"),
        }
    }

    /// Stores the row of a connection that has none.
    pub fn put_new(&self, connection: &str, sk: &str) {
        self.put_row(row(connection, sk, "2026-01-01"));
    }

    /// Stores the row of a connection in place of an earlier one.
    pub fn put(&self, connection: &str, sk: &str, created_at: &str) {
        let row = row(connection, sk, created_at);
        let mut rows = self.rows.lock().unwrap();
        rows.retain(|other| other.get("connection_id") != row.get("connection_id"));
        rows.push(row);
    }

    /// Stores the row of a connection that has none, with a TTL.
    pub fn put_until(&self, connection: &str, sk: &str, ttl: i64) {
        let mut row = row(connection, sk, "2026-01-01");
        row.insert("ttl".to_owned(), AttributeValue::N(ttl.to_string()));
        self.put_row(row);
    }

    pub fn put_row(&self, row: Item) {
        self.rows.lock().unwrap().push(row);
    }

    /// The ids of the stored connections.
    pub fn stored(&self) -> Vec<String> {
        let id = |row: &Item| match row.get("connection_id") {
            Some(AttributeValue::S(id)) => Some(id.clone()),
            _ => None,
        };
        self.rows.lock().unwrap().iter().filter_map(id).collect()
    }

    /// Queried pages.
    pub fn queries(&self) -> usize {
        self.queries.load(Ordering::Relaxed)
    }

    /// Scanned pages by segment.
    pub fn scans(&self) -> BTreeMap<u32, usize> {
        self.scans.lock().unwrap().clone()
    }

    /// Rows that were read by key.
    pub fn reads(&self) -> usize {
        self.reads.load(Ordering::Relaxed)
    }

    /// Sets the latency of a page. Its rows are those that are stored when it is requested.
    pub fn set_latency(&self, latency: Duration) {
        *self.latency.lock().unwrap() = latency;
    }

    /// Sets the error of every request.
    pub fn set_error(&self, kind: Option<ConnectionsErrorKind>) {
        *self.error.lock().unwrap() = kind;
    }

    /// Sets the value whose queries fail, as if its partition was throttled.
    pub fn set_throttled_value(&self, sk: Option<&str>) {
        *self.throttled_value.lock().unwrap() = sk.map(|sk| AttributeValue::S(sk.to_owned()));
    }

    /// Denies or grants the permission to delete rows.
    pub fn deny_deletes(&self, denied: bool) {
        self.denies_deletes.store(denied, Ordering::Relaxed);
    }

    /// Sets the type of the queried key: `S`, `N` or `B`.
    pub fn set_key_type(&self, kind: &'static str) {
        *self.key_type.lock().unwrap() = kind;
    }

    /// Removes or restores the index.
    pub fn set_index_exists(&self, exists: bool) {
        self.has_index.store(exists, Ordering::Relaxed);
    }

    /// The error that DynamoDB returns for a query of a missing index.
    fn check_index(&self) -> Result<(), ConnectionsError> {
        let exists = self.has_index.load(Ordering::Relaxed);
        exists.then_some(()).ok_or(ConnectionsError {
            action: "dynamodb:Query",
            kind: ConnectionsErrorKind::Invalid,
            source: None,
        })
    }

    fn check(&self) -> Result<(), ConnectionsError> {
        match *self.error.lock().unwrap() {
            Some(kind) => Err(ConnectionsError { action: "dynamodb:Fake", kind, source: None }),
            None => Ok(()),
        }
    }

    /// A page of the rows for which `is_match` holds, from `start` on.
    fn page(
        &self,
        attributes: &[String],
        start: Option<&Item>,
        is_match: impl Fn(usize, &Item) -> bool,
    ) -> RowPage {
        let rows = self.rows.lock().unwrap();
        let mut found = rows.iter().enumerate().filter(|(n, row)| is_match(*n, row));
        if let Some(start) = start {
            let id = start.get("connection_id");
            found.by_ref().find(|(_, row)| row.get("connection_id") == id).unwrap();
        }
        let page: Vec<_> = found.by_ref().take(self.rows_per_page).map(|(_, row)| row).collect();
        let next = page.last().filter(|_| found.next().is_some()).map(|row| (*row).clone());
        RowPage {
            rows: page.into_iter().map(|row| projected(row, attributes)).collect(),
            next_key: next,
        }
    }

    async fn delay(&self, page: RowPage) -> RowPage {
        let latency = *self.latency.lock().unwrap();
        if !latency.is_zero() {
            sleep(latency).await;
        }
        page
    }
}

fn projected(row: &Item, attributes: &[String]) -> Item {
    let is_requested = |(name, _): &(&String, &AttributeValue)| attributes.contains(name);
    row.iter().filter(is_requested).map(|(name, value)| (name.clone(), value.clone())).collect()
}

fn row(connection: &str, sk: &str, created_at: &str) -> Item {
    let text = |text: &str| AttributeValue::S(text.to_owned());
    Item::from([
        ("connection_id".to_owned(), text(connection)),
        ("sk".to_owned(), text(sk)),
        ("created_at".to_owned(), text(created_at)),
    ])
}

impl ConnectionsTable for FakeConnections {
    fn describe(&self) -> BoxFuture<'_, Result<TableDescription, ConnectionsError>> {
        Box::pin(async move {
            self.check()?;
            let key = |name: &str| KeySchema { partition: name.to_owned(), sort: None };
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
        })
    }

    fn query<'a>(
        &'a self,
        value: &'a AttributeValue,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        Box::pin(async move {
            self.queries.fetch_add(1, Ordering::Relaxed);
            self.check_index()?;
            if *self.error.lock().unwrap() == Some(ConnectionsErrorKind::Invalid) {
                return Err(ConnectionsError {
                    action: "dynamodb:Query",
                    kind: ConnectionsErrorKind::Invalid,
                    source: None,
                });
            }
            self.check()?;
            if self.throttled_value.lock().unwrap().as_ref() == Some(value) {
                let kind = ConnectionsErrorKind::Unavailable;
                return Err(ConnectionsError { action: "dynamodb:Query", kind, source: None });
            }
            let page = self.page(attributes, start, |_, row| row.get("sk") == Some(value));
            Ok(self.delay(page).await)
        })
    }

    fn scan<'a>(
        &'a self,
        segment: Segment,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        Box::pin(async move {
            *self.scans.lock().unwrap().entry(segment.number).or_default() += 1;
            self.check()?;
            let in_segment = |n: usize| n as u32 % segment.total == segment.number;
            let page = self.page(attributes, start, |n, _| in_segment(n));
            Ok(self.delay(page).await)
        })
    }

    fn get<'a>(&'a self, key: &'a Item) -> BoxFuture<'a, Result<Option<Item>, ConnectionsError>> {
        Box::pin(async move {
            self.reads.fetch_add(1, Ordering::Relaxed);
            self.check()?;
            let id = key.get("connection_id");
            let rows = self.rows.lock().unwrap();
            Ok(rows.iter().find(|row| row.get("connection_id") == id).cloned())
        })
    }

    fn delete_if_unchanged<'a>(
        &'a self,
        _: &'a KeySchema,
        row: &'a Item,
    ) -> BoxFuture<'a, Result<bool, ConnectionsError>> {
        Box::pin(async move {
            self.check()?;
            if self.denies_deletes.load(Ordering::Relaxed) {
                let kind = ConnectionsErrorKind::AccessDenied;
                return Err(ConnectionsError { action: "dynamodb:DeleteItem", kind, source: None });
            }
            let mut rows = self.rows.lock().unwrap();
            let before = rows.len();
            rows.retain(|other| other != row);
            Ok(rows.len() < before)
        })
    }
}
