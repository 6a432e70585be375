//! Asks the table, until it answers: one lookup from its first call to its last row.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::cache::{Beginnings, Found, Key};
use super::connections_config::Source;
use super::row::{Columns, Connection, Row};
use crate::delivery::connections::{Connections, ConnectionsError, ConnectionsErrorKind, Segment};
use crate::delivery::lookup::LONGEST_WAIT;
use crate::model::{AttributeValue, Item, UnixSeconds};
use crate::telemetry::{Health, LookupKind, NotifierTelemetry, Part, Trouble};
use crate::timing::{Failing, Random};

/// In how many segments every row is read: enough to read 100,000 rows within a second, and cheap
/// for a table that fits on a page.
const SEGMENTS: u32 = 8;

/// For how long a fault of some rows is told after it was seen last: other lookups find other rows.
const SEEN_FOR: Duration = Duration::from_secs(600);

/// The table, and how it is asked.
#[derive(Debug)]
pub(crate) struct Table {
    pub connections: Arc<dyn Connections>,
    pub source: Source,
    pub columns: Columns,
    /// The attributes that a lookup asks for.
    attributes: Vec<String>,
    pub beginnings: Beginnings,
    seen: Mutex<Seen>,
    /// How many lookups fail, of those that have told so.
    failing: Mutex<usize>,
    health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    random: Arc<Random>,
}

/// When faults of rows were seen last.
#[derive(Debug, Default)]
struct Seen {
    unaddressed: Option<Instant>,
    in_milliseconds: Option<Instant>,
}

/// Which rows are asked for, page by page.
#[derive(Clone, Copy, Debug)]
enum Asked<'a> {
    /// Those of a partition key's value.
    Of(&'a AttributeValue),
    /// A share of all.
    Segment(Segment),
}

/// The rows of a lookup, as they come.
#[derive(Debug, Default)]
struct Rows {
    connections: Vec<Arc<Connection>>,
    unaddressed: u64,
    expired: u64,
    in_milliseconds: bool,
}

impl Table {
    pub fn new(
        connections: Arc<dyn Connections>,
        source: Source,
        columns: Columns,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        random: Arc<Random>,
    ) -> Self {
        let attributes = columns.names();
        let (beginnings, seen, failing) =
            (Beginnings::default(), Mutex::default(), Mutex::default());
        Self {
            connections,
            source,
            columns,
            attributes,
            beginnings,
            seen,
            failing,
            health,
            telemetry,
            random,
        }
    }

    /// The connections stored under this key; rows are out of date that are so at `now`.
    pub async fn find(self: Arc<Self>, key: Key, now: UnixSeconds) -> Found {
        let mut failing = Failing::new(LONGEST_WAIT);
        let mut has_told = false;
        loop {
            let begun = self.beginnings.begin();
            let error = match self.rows(&key, now).await {
                Ok(rows) => {
                    self.works(has_told);
                    return Found { begun, connections: self.told(rows) };
                }
                Err(error) => error,
            };
            self.telemetry.retrying(&error);
            let trouble = match self.explained(&error).await {
                None => self.source.trouble(&error, &mut failing),
                explained => explained,
            };
            if let Some(trouble) = trouble {
                self.fails(trouble, std::mem::replace(&mut has_told, true));
            }
            sleep(failing.wait(&self.random)).await;
        }
    }

    /// A lookup fails, and tells why, again if it `has_told`.
    fn fails(&self, trouble: Trouble, has_told: bool) {
        let mut failing = self.failing();
        *failing += usize::from(!has_told);
        self.health.troubled(Part::Connections, trouble);
    }

    /// A lookup works. What others tell stays: one key may be throttled while the rest is well.
    fn works(&self, has_told: bool) {
        let mut failing = self.failing();
        *failing -= usize::from(has_told);
        if *failing == 0 {
            self.health.well(&Part::Connections);
        }
    }

    fn failing(&self) -> std::sync::MutexGuard<'_, usize> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with the table, where DynamoDB only says that a request is invalid: so it
    /// answers for an index that was taken away or is being made. Never for a value: what cannot be
    /// a key was refused before it got here.
    async fn explained(&self, error: &ConnectionsError) -> Option<Trouble> {
        if error.kind != ConnectionsErrorKind::Invalid {
            return None;
        }
        match self.connections.describe().await {
            Ok(table) => self.source.check(&table).err(),
            Err(_) => None,
        }
    }

    async fn rows(&self, key: &Key, now: UnixSeconds) -> Result<Rows, ConnectionsError> {
        let Some(value) = key else {
            self.telemetry.looked_up(LookupKind::Scan);
            let segment = |number| Asked::Segment(Segment { number, of: SEGMENTS });
            let segments = (0..SEGMENTS).map(|number| self.pages(segment(number), now));
            return Ok(Rows::joined(try_join_all(segments).await?));
        };
        self.telemetry.looked_up(LookupKind::Query);
        Ok(Rows::joined(vec![self.pages(Asked::Of(value), now).await?]))
    }

    /// Every page of these rows.
    async fn pages(&self, asked: Asked<'_>, now: UnixSeconds) -> Result<Rows, ConnectionsError> {
        let (connections, attributes) = (&self.connections, &self.attributes);
        let mut rows = Rows::default();
        let mut start = None;
        loop {
            let page = match asked {
                Asked::Of(value) => connections.query(value, attributes, start.as_ref()).await?,
                Asked::Segment(segment) => {
                    connections.scan(segment, attributes, start.as_ref()).await?
                }
            };
            for row in &page.rows {
                rows.add(&self.columns, row, now);
            }
            start = page.next;
            if start.is_none() || !page.rows.is_empty() && fault!(LookupReadsFirstPageOnly) {
                return Ok(rows);
            }
        }
    }

    /// Tells what is the matter with rows, and gives the connections.
    fn told(&self, rows: Rows) -> Vec<Arc<Connection>> {
        let Rows { connections, unaddressed, expired, in_milliseconds } = rows;
        self.telemetry.rows_skipped(unaddressed, expired);
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = || self.source.unaddressed();
        self.tell(&mut seen.unaddressed, unaddressed > 0, Part::RowIds, trouble);
        if let Some(attribute) = &self.source.ttl_attribute {
            let trouble = || self.source.in_milliseconds(attribute);
            self.tell(&mut seen.in_milliseconds, in_milliseconds, Part::RowTtl, trouble);
        }
        connections
    }

    fn tell(
        &self,
        seen: &mut Option<Instant>,
        is_seen: bool,
        part: Part,
        trouble: impl FnOnce() -> Trouble,
    ) {
        if is_seen {
            *seen = Some(Instant::now());
            self.health.warned(part, trouble());
        } else if seen.is_some_and(|seen| seen.elapsed() >= SEEN_FOR) {
            *seen = None;
            self.health.well(&part);
        }
    }
}

impl Rows {
    fn add(&mut self, columns: &Columns, row: &Item, now: UnixSeconds) {
        self.in_milliseconds |= columns.is_in_milliseconds(row);
        match columns.row(row, now) {
            Row::Connected(connection) => self.connections.push(Arc::new(connection)),
            Row::Expired => self.expired += 1,
            Row::Unaddressed => self.unaddressed += 1,
        }
    }

    /// All of them. A connection that is stored in several rows, as one for each thing that it
    /// watches, is told once.
    fn joined(parts: Vec<Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.connections.extend(part.connections);
            all.unaddressed += part.unaddressed;
            all.expired += part.expired;
            all.in_milliseconds |= part.in_milliseconds;
        }
        let mut ids = HashSet::with_capacity(all.connections.len());
        let connections = all.connections.iter().filter(|connection| ids.insert(&connection.id));
        all.connections = connections.cloned().collect();
        all
    }
}
