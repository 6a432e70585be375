//! Finds the connections that a change concerns. A failing lookup holds its record and tells why;
//! it gives nothing up.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::outbox::Connection;
use super::{Connections, ConnectionsError, ConnectionsErrorKind, TableDescription};
use crate::backoff::{Failing, Random};
use crate::record::{AttributeValue, Item, KeyNames};
use crate::telemetry::{Health, NotifierTelemetry, Part, Trouble};

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

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
    /// The type that the partition key has, as AWS spells it, if the table tells.
    key_type: Option<String>,
    health: Arc<Health>,
    telemetry: NotifierTelemetry,
    random: Arc<Random>,
}

/// The value looked up is of another type than the key.
#[derive(Debug, thiserror::Error)]
#[error("gives type {given}, but the partition key is of type {key}")]
pub struct NotAKey {
    /// Its type, as AWS spells it.
    pub given: &'static str,
    /// The key's.
    pub key: String,
}

impl<C: Connections> Lookup<C> {
    /// Learns the table's keys, waiting until table and index are there and may be read.
    pub async fn open(
        connections: Arc<C>,
        source: Source,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        random: Arc<Random>,
    ) -> Self {
        let mut failing = Failing::new(LONGEST_WAIT);
        let table = loop {
            let trouble = match connections.describe().await {
                Ok(table) => match source.check(&table) {
                    Ok(()) => break table,
                    Err(trouble) => Some(trouble),
                },
                Err(error) => {
                    telemetry.retrying(&error);
                    source.trouble(&error, &mut failing)
                }
            };
            if let Some(trouble) = trouble {
                health.troubled(Part::Connections, trouble);
            }
            sleep(failing.wait(&random)).await;
        };
        health.well(&Part::Connections);
        let key_type = table.types.get(&source.partition_key).cloned();
        Self { connections, source, keys: table.keys, key_type, health, telemetry, random }
    }

    /// The connections stored under this value, read after the call began.
    pub async fn find(&self, value: &AttributeValue) -> Result<Vec<Arc<Connection>>, NotAKey> {
        if let Some(key) = self.key_type.as_ref().filter(|key| *key != value.kind()) {
            return Err(NotAKey { given: value.kind(), key: key.clone() });
        }
        let mut failing = Failing::new(LONGEST_WAIT);
        loop {
            let error = match self.all_rows(value).await {
                Ok(rows) => {
                    self.health.well(&Part::Connections);
                    return Ok(self.connections_of(rows));
                }
                Err(error) => error,
            };
            self.telemetry.retrying(&error);
            let trouble = match self.explained(&error).await {
                None => self.source.trouble(&error, &mut failing),
                explained => explained,
            };
            if let Some(trouble) = trouble {
                self.health.troubled(Part::Connections, trouble);
            }
            sleep(failing.wait(&self.random)).await;
        }
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
        is_connection_id(&id).then(|| Arc::new(Connection { id, row }))
    }
}

/// Base64, as API Gateway makes them. Anything else would be a path of its own in the post's URL,
/// and what the endpoint answers to that would be taken for the endpoint's state.
fn is_connection_id(id: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=+/".contains(&byte);
    (1..=128).contains(&id.len()) && id.bytes().all(is_plain)
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

    /// What to tell of a failure; nothing while it may still pass by itself.
    fn trouble(&self, error: &ConnectionsError, failing: &mut Failing) -> Option<Trouble> {
        let (asked, action) = (self.asked(), error.action);
        let has_lasted = failing.has_lasted();
        let (reason, message, stalled) = match error.kind {
            ConnectionsErrorKind::NotFound => (
                "ConnectionsNotFound",
                format!("there is no {asked}: create it, or correct connections.tableName"),
                true,
            ),
            ConnectionsErrorKind::AccessDenied => (
                "ConnectionsAccessDenied",
                format!("access denied: allow {action} on {asked}"),
                true,
            ),
            ConnectionsErrorKind::NoCredentials => (
                "NoCredentials",
                format!("there are no AWS credentials to read {asked} with"),
                true,
            ),
            ConnectionsErrorKind::Invalid | ConnectionsErrorKind::Unavailable => {
                if !has_lasted {
                    return None;
                }
                (
                    "ConnectionsUnavailable",
                    format!("{action} on {asked} has had no usable answer for a minute"),
                    false,
                )
            }
        };
        Some(Trouble { reason, message, stalled })
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
