//! Finds the connections that a change concerns. A failing lookup holds its record and tells why;
//! it gives nothing up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::outbox::Connection;
use super::{Connections, ConnectionsError, ConnectionsErrorKind, TableDescription};
use crate::backoff::{Backoff, Random};
use crate::record::{AttributeValue, Item, KeyNames};
use crate::telemetry::{Health, NotifierTelemetry, Part, Trouble};

/// Trouble that may pass by itself is told once it lasted this long.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where connections are stored, as the spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The table, named in conditions.
    pub table: String,
    /// The index that is asked, if not the table.
    pub index: Option<String>,
    /// The partition key that is asked.
    pub partition_key: String,
    /// The row's attribute that holds the connection id.
    pub connection_id_attribute: String,
}

/// Finds connections.
#[derive(Debug)]
pub struct Lookup<C> {
    connections: Arc<C>,
    source: Source,
    keys: KeyNames,
    health: Arc<Health>,
    telemetry: NotifierTelemetry,
    random: Arc<Random>,
}

/// The value looked up cannot be a key, such as an empty string.
#[derive(Debug, thiserror::Error)]
#[error("the value is no key of the connections table")]
pub struct NotAKey(#[source] pub ConnectionsError);

impl<C: Connections> Lookup<C> {
    /// Learns the table's keys, waiting until table and index are there and may be read.
    pub async fn open(
        connections: Arc<C>,
        source: Source,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        random: Arc<Random>,
    ) -> Self {
        let mut tries = Tries::new();
        let keys = loop {
            let trouble = match connections.describe().await {
                Ok(table) => match source.check(&table) {
                    Ok(()) => break table.keys,
                    Err(trouble) => trouble,
                },
                Err(error) => {
                    telemetry.retrying(&error);
                    match tries.trouble(&source, &error) {
                        Some(trouble) => trouble,
                        None => {
                            sleep(tries.wait(&random)).await;
                            continue;
                        }
                    }
                }
            };
            health.troubled(Part::Connections, trouble);
            sleep(tries.wait(&random)).await;
        };
        health.well(&Part::Connections);
        Self { connections, source, keys, health, telemetry, random }
    }

    /// The connections stored under this value, read after the call began.
    pub async fn find(&self, value: &AttributeValue) -> Result<Vec<Arc<Connection>>, NotAKey> {
        let mut tries = Tries::new();
        loop {
            let error = match self.all_rows(value).await {
                Ok(rows) => {
                    self.health.well(&Part::Connections);
                    return Ok(self.connections_of(rows));
                }
                Err(error) => error,
            };
            if error.kind == ConnectionsErrorKind::Invalid {
                return Err(NotAKey(error));
            }
            self.telemetry.retrying(&error);
            if let Some(trouble) = tries.trouble(&self.source, &error) {
                self.health.troubled(Part::Connections, trouble);
            }
            sleep(tries.wait(&self.random)).await;
        }
    }

    /// Deletes a connection's row, unless it was written again since it was read.
    pub async fn delete(&self, connection: &Connection) {
        match self.connections.delete_unchanged(&self.keys, &connection.row).await {
            Ok(deleted) => self.telemetry.row_deleted(&connection.id, deleted),
            Err(error) => self.telemetry.row_not_deleted(&connection.id, &error),
        }
    }

    async fn all_rows(&self, value: &AttributeValue) -> Result<Vec<Item>, ConnectionsError> {
        let mut rows = Vec::new();
        let mut start = None;
        loop {
            let page = self.connections.query(value, start.as_ref()).await?;
            rows.extend(page.rows);
            start = page.next;
            if start.is_none() {
                return Ok(rows);
            }
        }
    }

    fn connections_of(&self, rows: Vec<Item>) -> Vec<Arc<Connection>> {
        let all = rows.len();
        let connections: Vec<_> = rows.into_iter().filter_map(|row| self.connection(row)).collect();
        let unaddressed = all - connections.len();
        if unaddressed > 0 {
            self.telemetry.unaddressed(unaddressed as u64);
        }
        connections
    }

    fn connection(&self, row: Item) -> Option<Arc<Connection>> {
        let Some(AttributeValue::S(id)) = row.get(&self.source.connection_id_attribute) else {
            return None;
        };
        let id = id.clone();
        (!id.is_empty()).then(|| Arc::new(Connection { id, row }))
    }
}

impl Source {
    /// Whether the table can be asked as the spec says.
    fn check(&self, table: &TableDescription) -> Result<(), Trouble> {
        let keys = match &self.index {
            None => &table.keys,
            Some(name) => match table.indexes.iter().find(|(index, _)| index == name) {
                Some((_, keys)) => keys,
                None => return Err(self.no_index(name)),
            },
        };
        if keys.partition == self.partition_key {
            return Ok(());
        }
        Err(Trouble {
            reason: "ConnectionsKeyMismatch",
            message: format!(
                "connections.partitionKey is {:?}, but the partition key of {} is {:?}",
                self.partition_key,
                self.asked(),
                keys.partition
            ),
            stalled: true,
        })
    }

    fn asked(&self) -> String {
        match &self.index {
            Some(index) => format!("index {index:?} of table {:?}", self.table),
            None => format!("table {:?}", self.table),
        }
    }

    fn no_index(&self, index: &str) -> Trouble {
        Trouble {
            reason: "ConnectionsIndexNotFound",
            message: format!(
                "the connections table {:?} has no index {index:?}: create it, or correct connections.indexName",
                self.table
            ),
            stalled: true,
        }
    }
}

/// The tries of one call.
struct Tries {
    since: Instant,
    backoff: Backoff,
}

impl Tries {
    fn new() -> Self {
        let backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(15));
        Self { since: Instant::now(), backoff }
    }

    fn wait(&mut self, random: &Random) -> Duration {
        self.backoff.next(random)
    }

    /// What to tell of a failure; nothing while it may still pass by itself.
    fn trouble(&self, source: &Source, error: &ConnectionsError) -> Option<Trouble> {
        let asked = source.asked();
        let (reason, message) = match error.kind {
            ConnectionsErrorKind::NotFound => (
                "ConnectionsNotFound",
                format!("there is no {asked}: create it, or correct connections.tableName"),
            ),
            ConnectionsErrorKind::AccessDenied => (
                "ConnectionsAccessDenied",
                format!("access denied: allow {} on {asked}", error.action),
            ),
            ConnectionsErrorKind::Invalid => (
                "ConnectionsInvalid",
                format!("{} on {asked} was refused as invalid", error.action),
            ),
            ConnectionsErrorKind::Unavailable if self.since.elapsed() < PATIENCE => return None,
            ConnectionsErrorKind::Unavailable => (
                "ConnectionsUnavailable",
                format!("{} on {asked} has had no usable answer for a minute", error.action),
            ),
        };
        let stalled = error.kind != ConnectionsErrorKind::Unavailable;
        Some(Trouble { reason, message, stalled })
    }
}
