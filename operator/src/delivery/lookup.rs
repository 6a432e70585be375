//! Finds the connections that a change concerns. A record uses a lookup that began after it was read,
//! or with `connections.cacheSeconds` one that is not older than that; all records of a key that may
//! share a lookup do. A failing lookup holds its records and tells why; it gives nothing up.
//!
//! Only a few attributes of a row are asked for, and a message that waits holds on to no more than
//! the id and the table's key. So a row is deleted by what it was later, when its connection seems
//! gone: it is read again, whole and consistently, *before* the gateway is asked for the last time
//! ([`Lookup::read_row`]), and deleted on condition that every attribute is as it was then
//! ([`Lookup::delete`]). What was written before that read was there when the gateway said that the
//! connection is gone, and goes with it; what is written after it, were it by the same connection,
//! differs from what was read, and stays. Comparing only what a lookup asks for would not do: a
//! connection that comes up late, and stores itself anew, may write the same id under the same key.

pub mod cache;
pub mod connections_config;
pub mod problems;
pub mod query;
pub mod row;

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::time::sleep;

use super::connections::{ConnectionsError, ConnectionsTable};
use crate::delivery::lookup::cache::{CacheEntry, LookupCache};
use crate::delivery::lookup::connections_config::ConnectionsConfig;
use crate::delivery::lookup::query::ConnectionsQuery;
use crate::delivery::lookup::row::{Connection, RowSchema};
use crate::model::{AttributeValue, Item, KeySchema, UnixSeconds};
use crate::telemetry::{Component, Health, NotifierTelemetry};
use crate::timing::{FailureTracker, JitterRng};

/// The longest wait between two tries.
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Finds connections.
#[derive(Debug)]
pub struct Lookup {
    query: Arc<ConnectionsQuery>,
    cache: LookupCache,
    key_schema: KeySchema,
    /// The type that the partition key has, as AWS spells it, if the table tells.
    key_type: Option<String>,
    health: Arc<Health>,
}

/// Looks up the connections for the records of a page that was read.
#[derive(Debug)]
pub struct LookupSession {
    lookup: Arc<Lookup>,
    /// The newest lookup that had begun.
    newest: u64,
    now: UnixSeconds,
}

/// The value looked up is of another type than the key.
#[derive(Debug, thiserror::Error)]
#[error("gives type {given}, but the partition key is of type {key}")]
pub struct KeyTypeMismatch {
    /// Its type, as AWS spells it.
    pub given: &'static str,
    /// The key's.
    pub key: String,
}

impl Lookup {
    /// Learns the table's keys, waiting until table and index are there and may be read.
    pub async fn open(
        connections: Arc<dyn ConnectionsTable>,
        source: ConnectionsConfig,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        random: Arc<JitterRng>,
    ) -> Self {
        let mut failing = FailureTracker::new(MAX_BACKOFF);
        let table = loop {
            let trouble = match connections.describe().await {
                Ok(table) => match source.check_table(&table) {
                    Ok(()) => break table,
                    Err(trouble) => Some(trouble),
                },
                Err(error) => {
                    telemetry.retry(&error);
                    source.request_failed(&error, &mut failing)
                }
            };
            if let Some(trouble) = trouble {
                health.set_problem(Component::Connections, trouble);
            }
            sleep(failing.next_wait(&random)).await;
        };
        health.clear(&Component::Connections);
        let key_type = source.partition_key.as_ref().and_then(|key| table.types.get(key)).cloned();
        let (lookups, keys) = (LookupCache::new(source.cache), table.keys);
        let columns = RowSchema::new(keys.clone(), &source);
        let table =
            ConnectionsQuery::new(connections, source, columns, health.clone(), telemetry, random);
        Self { query: Arc::new(table), cache: lookups, key_schema: keys, key_type, health }
    }

    /// Whether this value can be looked up: only one of the key's type can.
    pub fn check_key_type(&self, value: Option<&AttributeValue>) -> Result<(), KeyTypeMismatch> {
        match (&self.key_type, value) {
            (Some(key), Some(value)) if *key != value.kind() => {
                Err(KeyTypeMismatch { given: value.kind(), key: key.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A page of records was read, and it is `now`.
    pub fn begin_page(self: &Arc<Self>, now: UnixSeconds) -> LookupSession {
        let newest = self.query.sequence.newest();
        self.cache.begin_page(newest);
        LookupSession { lookup: self.clone(), newest, now }
    }

    /// The row of a connection that seems gone, if it is still there: read before the gateway has the
    /// last word.
    pub async fn read_row(&self, connection: &Connection) -> Option<Item> {
        let table = &self.query;
        match table.connections.get(&table.schema.key_of(connection)).await {
            Ok(row) => row.filter(|row| table.schema.is_row_of(row, connection)),
            Err(error) => {
                self.report_deletion_failure(connection, &error);
                None
            }
        }
    }

    /// Leaves a connection that is gone out of what was found before, and deletes its row, unless that
    /// was written again since it was read.
    pub async fn delete_stale_row(&self, connection: &Connection, row: Option<Item>) {
        let table = &self.query;
        self.cache.add_tombstone(&connection.id, table.sequence.newest());
        let Some(row) = row else {
            return;
        };
        match table.connections.delete_if_unchanged(&self.key_schema, &row).await {
            Ok(deleted) => {
                self.health.clear(&Component::RowDeletion);
                table.telemetry.row_deleted(&connection.id, deleted);
            }
            Err(error) => self.report_deletion_failure(connection, &error),
        }
    }

    /// Messages go out all the same.
    fn report_deletion_failure(&self, connection: &Connection, error: &ConnectionsError) {
        self.query.telemetry.row_not_deleted(&connection.id, error);
        if let Some(trouble) = self.query.config.deletion_problem(error) {
            self.health.set_warning(Component::RowDeletion, trouble);
        }
    }
}

impl LookupSession {
    /// The connections stored under this value, or every one: those of a lookup that may serve this
    /// page's records.
    pub async fn find(&self, key: Option<AttributeValue>) -> Vec<Arc<Connection>> {
        let Lookup { query: table, cache: lookups, .. } = &*self.lookup;
        let begin = || table.clone().find(key.clone(), self.now).map(Arc::new).boxed().shared();
        loop {
            let (found, is_ours) = match lookups.get_or_start(&key, self.newest, begin) {
                CacheEntry::Hit(found) => (found, false),
                CacheEntry::Started(lookup) => (lookups.wait(&key, lookup).await, true),
                CacheEntry::Pending(lookup) => (lookups.wait(&key, lookup).await, false),
            };
            if let Some(kind) = lookups.reuse_kind(found.start, self.newest) {
                if !is_ours {
                    table.telemetry.lookup_reused(kind);
                }
                return lookups.without_gone(&found);
            }
        }
    }
}

impl Drop for LookupSession {
    fn drop(&mut self) {
        self.lookup.cache.end_page(self.newest);
    }
}
