//! Queries the connections table until a lookup succeeds.
//!
//! A lookup reads every page of its rows. If a request fails, the lookup starts again from its
//! first request, so a result never combines rows from different attempts.

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
use crate::model::{AttributeValue, Item, UnixSeconds};
use crate::telemetry::{Component, Health, LookupKind, NotifierTelemetry, Problem};
use crate::timing::{FailureTracker, JitterRng};

/// Maximum wait between two attempts.
pub(crate) const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Number of segments of a scan: enough to read 100,000 rows within one second, and cheap for a
/// table that fits on one page.
const SCAN_SEGMENTS: u32 = 8;

/// How long a fault of rows is reported after it was last seen. The lookups in between may have
/// read other rows.
const ROW_FAULT_TTL: Duration = Duration::from_secs(600);

/// Runs the lookups of one notifier.
#[derive(Debug)]
pub(crate) struct ConnectionsQuery {
    pub connections: Arc<dyn ConnectionsTable>,
    pub config: ConnectionsConfig,
    pub schema: RowSchema,
    /// The attributes that a lookup requests.
    attributes: Vec<String>,
    pub sequence: LookupSequence,
    row_faults: Mutex<RowFaults>,
    /// Number of lookups in flight that have reported a problem.
    failing_lookups: Mutex<usize>,
    health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    rng: Arc<JitterRng>,
}

/// When each fault of rows was last seen.
#[derive(Debug, Default)]
struct RowFaults {
    connection_id_missing: Option<Instant>,
    invalid_ttl_unit: Option<Instant>,
}

/// The rows that a sequence of requests reads.
#[derive(Clone, Copy, Debug)]
enum QueryScope<'a> {
    /// The rows with this partition key.
    Key(&'a AttributeValue),
    /// A segment of all rows.
    Segment(Segment),
}

/// The rows of a lookup, parsed.
#[derive(Debug, Default)]
struct Rows {
    connections: Vec<Arc<Connection>>,
    unusable: u64,
    expired: u64,
    has_invalid_ttl_unit: bool,
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
        let (sequence, row_faults, failing_lookups) =
            (LookupSequence::default(), Mutex::default(), Mutex::default());
        Self {
            connections,
            config,
            schema,
            attributes,
            sequence,
            row_faults,
            failing_lookups,
            health,
            telemetry,
            rng,
        }
    }

    /// Finds the connections stored under this key, without the rows that are expired at `now`.
    pub async fn find_connections(
        self: Arc<Self>,
        key: LookupKey,
        now: UnixSeconds,
    ) -> LookupResult {
        let mut failures = FailureTracker::new(MAX_BACKOFF);
        let mut is_reported = false;
        loop {
            let start = self.sequence.record_start();
            let error = match self.read_rows(&key, now).await {
                Ok(rows) => {
                    self.record_success(is_reported);
                    return LookupResult { start, connections: self.report_row_faults(rows) };
                }
                Err(error) => error,
            };
            self.telemetry.request_failed(&error);
            let problem = match self.diagnose(&error).await {
                None => self.config.request_problem(&error, &mut failures),
                diagnosed => diagnosed,
            };
            if let Some(problem) = problem {
                self.record_failure(problem, std::mem::replace(&mut is_reported, true));
            }
            sleep(failures.next_wait(&self.rng)).await;
        }
    }

    /// Reports the problem of a lookup, which may have reported one before.
    fn record_failure(&self, problem: Problem, was_reported: bool) {
        let mut failing = self.failing_lookups();
        *failing += usize::from(!was_reported);
        self.health.set_problem(Component::Connections, problem);
    }

    /// Records the success of a lookup. The problem stays while other lookups fail, because
    /// DynamoDB may throttle only one key.
    fn record_success(&self, was_reported: bool) {
        let mut failing = self.failing_lookups();
        *failing -= usize::from(was_reported);
        if *failing == 0 {
            self.health.clear(&Component::Connections);
        }
    }

    fn failing_lookups(&self) -> std::sync::MutexGuard<'_, usize> {
        self.failing_lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Finds the problem behind a request that DynamoDB rejected as invalid. DynamoDB also returns
    /// this error while an index is being created, or after it was deleted. The value is never the
    /// cause, because a value that cannot be a key does not get here.
    async fn diagnose(&self, error: &ConnectionsError) -> Option<Problem> {
        if error.kind != ConnectionsErrorKind::Invalid {
            return None;
        }
        match self.connections.describe().await {
            Ok(table) => self.config.check_table(&table).err(),
            Err(_) => None,
        }
    }

    async fn read_rows(&self, key: &LookupKey, now: UnixSeconds) -> Result<Rows, ConnectionsError> {
        let Some(value) = key else {
            self.telemetry.connections_looked_up(LookupKind::Scan);
            let segment = |number| QueryScope::Segment(Segment { number, total: SCAN_SEGMENTS });
            let segments = (0..SCAN_SEGMENTS).map(|number| self.read_pages(segment(number), now));
            return Ok(Rows::merge(try_join_all(segments).await?));
        };
        self.telemetry.connections_looked_up(LookupKind::Query);
        Ok(Rows::merge(vec![self.read_pages(QueryScope::Key(value), now).await?]))
    }

    async fn read_pages(
        &self,
        scope: QueryScope<'_>,
        now: UnixSeconds,
    ) -> Result<Rows, ConnectionsError> {
        let (connections, attributes) = (&self.connections, &self.attributes);
        let mut rows = Rows::default();
        let mut start = None;
        loop {
            let page = match scope {
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

    /// Reports the faults of rows, and returns the connections.
    fn report_row_faults(&self, rows: Rows) -> Vec<Arc<Connection>> {
        let Rows { connections, unusable, expired, has_invalid_ttl_unit } = rows;
        self.telemetry.rows_skipped(unusable, expired);
        let mut last_seen = self.row_faults.lock().unwrap_or_else(PoisonError::into_inner);
        self.report_row_fault(
            &mut last_seen.connection_id_missing,
            unusable > 0,
            Component::ConnectionIds,
            || self.config.connection_id_missing(),
        );
        if let Some(attribute) = &self.config.ttl_attribute {
            self.report_row_fault(
                &mut last_seen.invalid_ttl_unit,
                has_invalid_ttl_unit,
                Component::RowTtl,
                || self.config.invalid_ttl_unit(attribute),
            );
        }
        connections
    }

    fn report_row_fault(
        &self,
        last_seen: &mut Option<Instant>,
        is_present: bool,
        component: Component,
        problem: impl FnOnce() -> Problem,
    ) {
        if is_present {
            *last_seen = Some(Instant::now());
            self.health.set_warning(component, problem());
        } else if last_seen.is_some_and(|at| at.elapsed() >= ROW_FAULT_TTL) {
            *last_seen = None;
            self.health.clear(&component);
        }
    }
}

impl Rows {
    fn add(&mut self, schema: &RowSchema, row: &Item, now: UnixSeconds) {
        self.has_invalid_ttl_unit |= schema.has_ttl_in_milliseconds(row);
        match schema.parse(row, now) {
            Row::Connected(connection) => self.connections.push(Arc::new(connection)),
            Row::Expired => self.expired += 1,
            Row::Unusable => self.unusable += 1,
        }
    }

    /// Merges the rows of all segments. A connection with several rows, such as one for each item
    /// that it watches, is included once.
    fn merge(parts: Vec<Self>) -> Self {
        let mut merged = Self::default();
        for part in parts {
            merged.connections.extend(part.connections);
            merged.unusable += part.unusable;
            merged.expired += part.expired;
            merged.has_invalid_ttl_unit |= part.has_invalid_ttl_unit;
        }
        let mut ids = HashSet::with_capacity(merged.connections.len());
        let connections = merged.connections.iter().filter(|connection| ids.insert(&connection.id));
        merged.connections = connections.cloned().collect();
        merged
    }
}
