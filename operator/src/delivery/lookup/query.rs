//! Asks the table, until it answers: one lookup from its first call to its last row.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::try_join_all;
use tokio::time::{Instant, sleep};

use super::cache::{LookupKey, LookupResult, LookupSequence};
use super::connections_config::ConnectionsConfig;
use super::row::{Connection, Row, RowSchema};
use crate::delivery::connections::{
    ConnectionsError, ConnectionsErrorKind, ConnectionsTable, Segment,
};
use crate::delivery::lookup::MAX_BACKOFF;
use crate::model::{AttributeValue, Item, UnixSeconds};
use crate::telemetry::{Component, Health, LookupKind, NotifierTelemetry, Problem};
use crate::timing::{FailureTracker, JitterRng};

/// In how many segments every row is read: enough to read 100,000 rows within a second, and cheap
/// for a table that fits on a page.
const SCAN_SEGMENTS: u32 = 8;

/// For how long a fault of some rows is told after it was seen last: other lookups find other rows.
const ROW_FAULT_TTL: Duration = Duration::from_secs(600);

/// The table, and how it is asked.
#[derive(Debug)]
pub(crate) struct ConnectionsQuery {
    pub connections: Arc<dyn ConnectionsTable>,
    pub config: ConnectionsConfig,
    pub schema: RowSchema,
    /// The attributes that a lookup asks for.
    attributes: Vec<String>,
    pub sequence: LookupSequence,
    row_faults: Mutex<RowFaults>,
    /// How many lookups fail, of those that have told so.
    failing: Mutex<usize>,
    health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    rng: Arc<JitterRng>,
}

/// When faults of rows were seen last.
#[derive(Debug, Default)]
struct RowFaults {
    connection_id_missing: Option<Instant>,
    invalid_ttl_unit: Option<Instant>,
}

/// Which rows are asked for, page by page.
#[derive(Clone, Copy, Debug)]
enum QueryScope<'a> {
    /// Those of a partition key's value.
    Key(&'a AttributeValue),
    /// A share of all.
    Segment(Segment),
}

/// The rows of a lookup, as they come.
#[derive(Debug, Default)]
struct Rows {
    connections: Vec<Arc<Connection>>,
    unusable: u64,
    expired: u64,
    with_invalid_ttl: bool,
}

impl ConnectionsQuery {
    pub fn new(
        connections: Arc<dyn ConnectionsTable>,
        config: ConnectionsConfig,
        schema: RowSchema,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        rng: Arc<JitterRng>,
    ) -> Self {
        let attributes = schema.attributes();
        let (sequence, row_faults, failing) =
            (LookupSequence::default(), Mutex::default(), Mutex::default());
        Self {
            connections,
            config,
            schema,
            attributes,
            sequence,
            row_faults,
            failing,
            health,
            telemetry,
            rng,
        }
    }

    /// The connections stored under this key; rows are out of date that are so at `now`.
    pub async fn find(self: Arc<Self>, key: LookupKey, now: UnixSeconds) -> LookupResult {
        let mut failing = FailureTracker::new(MAX_BACKOFF);
        let mut has_told = false;
        loop {
            let begun = self.sequence.start();
            let error = match self.rows(&key, now).await {
                Ok(rows) => {
                    self.record_success(has_told);
                    return LookupResult {
                        start: begun,
                        connections: self.report_row_faults(rows),
                    };
                }
                Err(error) => error,
            };
            self.telemetry.retry(&error);
            let trouble = match self.diagnose(&error).await {
                None => self.config.request_failed(&error, &mut failing),
                explained => explained,
            };
            if let Some(trouble) = trouble {
                self.record_failure(trouble, std::mem::replace(&mut has_told, true));
            }
            sleep(failing.next_wait(&self.rng)).await;
        }
    }

    /// A lookup fails, and tells why, again if it `has_told`.
    fn record_failure(&self, trouble: Problem, has_told: bool) {
        let mut failing = self.failing_lookups();
        *failing += usize::from(!has_told);
        self.health.set_problem(Component::Connections, trouble);
    }

    /// A lookup works. What others tell stays: one key may be throttled while the rest is well.
    fn record_success(&self, has_told: bool) {
        let mut failing = self.failing_lookups();
        *failing -= usize::from(has_told);
        if *failing == 0 {
            self.health.clear(&Component::Connections);
        }
    }

    fn failing_lookups(&self) -> std::sync::MutexGuard<'_, usize> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is wrong with the table, where DynamoDB only says that a request is invalid: so it
    /// answers for an index that was taken away or is being made. Never for a value: what cannot be
    /// a key was refused before it got here.
    async fn diagnose(&self, error: &ConnectionsError) -> Option<Problem> {
        if error.kind != ConnectionsErrorKind::Invalid {
            return None;
        }
        match self.connections.describe().await {
            Ok(table) => self.config.check_table(&table).err(),
            Err(_) => None,
        }
    }

    async fn rows(&self, key: &LookupKey, now: UnixSeconds) -> Result<Rows, ConnectionsError> {
        let Some(value) = key else {
            self.telemetry.lookup_reused(LookupKind::Scan);
            let segment = |number| QueryScope::Segment(Segment { number, total: SCAN_SEGMENTS });
            let segments = (0..SCAN_SEGMENTS).map(|number| self.pages(segment(number), now));
            return Ok(Rows::merge(try_join_all(segments).await?));
        };
        self.telemetry.lookup_reused(LookupKind::Query);
        Ok(Rows::merge(vec![self.pages(QueryScope::Key(value), now).await?]))
    }

    /// Every page of these rows.
    async fn pages(
        &self,
        asked: QueryScope<'_>,
        now: UnixSeconds,
    ) -> Result<Rows, ConnectionsError> {
        let (connections, attributes) = (&self.connections, &self.attributes);
        let mut rows = Rows::default();
        let mut start = None;
        loop {
            let page = match asked {
                QueryScope::Key(value) => {
                    connections.query(value, attributes, start.as_ref()).await?
                }
                QueryScope::Segment(segment) => {
                    connections.scan(segment, attributes, start.as_ref()).await?
                }
            };
            for row in &page.rows {
                rows.add(&self.schema, row, now);
            }
            start = page.next_key;
            if start.is_none() || !page.rows.is_empty() && fault!(LookupReadsFirstPageOnly) {
                return Ok(rows);
            }
        }
    }

    /// Tells what is the matter with rows, and gives the connections.
    fn report_row_faults(&self, rows: Rows) -> Vec<Arc<Connection>> {
        let Rows { connections, unusable: unaddressed, expired, with_invalid_ttl: in_milliseconds } =
            rows;
        self.telemetry.rows_skipped(unaddressed, expired);
        let mut seen = self.row_faults.lock().unwrap_or_else(PoisonError::into_inner);
        let trouble = || self.config.connection_id_missing();
        self.report_row_fault(
            &mut seen.connection_id_missing,
            unaddressed > 0,
            Component::ConnectionIds,
            trouble,
        );
        if let Some(attribute) = &self.config.ttl_attribute {
            let trouble = || self.config.invalid_ttl_unit(attribute);
            self.report_row_fault(
                &mut seen.invalid_ttl_unit,
                in_milliseconds,
                Component::RowTtl,
                trouble,
            );
        }
        connections
    }

    fn report_row_fault(
        &self,
        seen: &mut Option<Instant>,
        is_seen: bool,
        part: Component,
        trouble: impl FnOnce() -> Problem,
    ) {
        if is_seen {
            *seen = Some(Instant::now());
            self.health.set_warning(part, trouble());
        } else if seen.is_some_and(|seen| seen.elapsed() >= ROW_FAULT_TTL) {
            *seen = None;
            self.health.clear(&part);
        }
    }
}

impl Rows {
    fn add(&mut self, columns: &RowSchema, row: &Item, now: UnixSeconds) {
        self.with_invalid_ttl |= columns.is_in_milliseconds(row);
        match columns.parse(row, now) {
            Row::Connected(connection) => self.connections.push(Arc::new(connection)),
            Row::Expired => self.expired += 1,
            Row::Unusable => self.unusable += 1,
        }
    }

    /// All of them. A connection that is stored in several rows, as one for each thing that it
    /// watches, is told once.
    fn merge(parts: Vec<Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.connections.extend(part.connections);
            all.unusable += part.unusable;
            all.expired += part.expired;
            all.with_invalid_ttl |= part.with_invalid_ttl;
        }
        let mut ids = HashSet::with_capacity(all.connections.len());
        let connections = all.connections.iter().filter(|connection| ids.insert(&connection.id));
        all.connections = connections.cloned().collect();
        all
    }
}
