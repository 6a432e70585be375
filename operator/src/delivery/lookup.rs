//! Finds the connections that a change concerns. A record uses a lookup that began after it was read,
//! or with `connections.cacheSeconds` one that is not older than that; all records of a key that may
//! share a lookup do. A failing lookup holds its records and tells why; it gives nothing up.
//!
//! Only a few attributes of a row are asked for, and a message that waits holds on to no more than
//! the id and the table's key. So a row is deleted by what it was later, when its connection seems
//! gone: it is read again, whole and consistently, *before* the gateway is asked for the last time
//! ([`Lookup::row`]), and deleted on condition that every attribute is as it was then
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

use super::connections::{Connections, ConnectionsError};
use crate::delivery::lookup::cache::{Lookups, Turn};
use crate::delivery::lookup::connections_config::Source;
use crate::delivery::lookup::query::Table;
use crate::delivery::lookup::row::{Columns, Connection};
use crate::model::{AttributeValue, Item, KeyNames, UnixSeconds};
use crate::telemetry::{Health, NotifierTelemetry, Part};
use crate::timing::{Failing, Random};

/// The longest wait between two tries.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Finds connections.
#[derive(Debug)]
pub struct Lookup {
    table: Arc<Table>,
    lookups: Lookups,
    keys: KeyNames,
    /// The type that the partition key has, as AWS spells it, if the table tells.
    key_type: Option<String>,
    health: Arc<Health>,
}

/// Looks up the connections for the records of a page that was read.
#[derive(Debug)]
pub struct PageLookup {
    lookup: Arc<Lookup>,
    /// The newest lookup that had begun.
    newest: u64,
    now: UnixSeconds,
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

impl Lookup {
    /// Learns the table's keys, waiting until table and index are there and may be read.
    pub async fn open(
        connections: Arc<dyn Connections>,
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
        let key_type = source.partition_key.as_ref().and_then(|key| table.types.get(key)).cloned();
        let (lookups, keys) = (Lookups::new(source.cache), table.keys);
        let columns = Columns::new(keys.clone(), &source);
        let table = Table::new(connections, source, columns, health.clone(), telemetry, random);
        Self { table: Arc::new(table), lookups, keys, key_type, health }
    }

    /// Whether this value can be looked up: only one of the key's type can.
    pub fn check(&self, value: Option<&AttributeValue>) -> Result<(), NotAKey> {
        match (&self.key_type, value) {
            (Some(key), Some(value)) if *key != value.kind() => {
                Err(NotAKey { given: value.kind(), key: key.clone() })
            }
            _ => Ok(()),
        }
    }

    /// A page of records was read, and it is `now`.
    pub fn of_page(self: &Arc<Self>, now: UnixSeconds) -> PageLookup {
        let newest = self.table.beginnings.newest();
        self.lookups.page_begins(newest);
        PageLookup { lookup: self.clone(), newest, now }
    }

    /// The row of a connection that seems gone, if it is still there: read before the gateway has the
    /// last word.
    pub async fn row(&self, connection: &Connection) -> Option<Item> {
        let table = &self.table;
        match table.connections.get(&table.columns.key(connection)).await {
            Ok(row) => row.filter(|row| table.columns.is_of(row, connection)),
            Err(error) => {
                self.not_deleted(connection, &error);
                None
            }
        }
    }

    /// Leaves a connection that is gone out of what was found before, and deletes its row, unless that
    /// was written again since it was read.
    pub async fn delete(&self, connection: &Connection, row: Option<Item>) {
        let table = &self.table;
        self.lookups.gone(&connection.id, table.beginnings.newest());
        let Some(row) = row else {
            return;
        };
        match table.connections.delete_unchanged(&self.keys, &row).await {
            Ok(deleted) => {
                self.health.well(&Part::RowDeletion);
                table.telemetry.row_deleted(&connection.id, deleted);
            }
            Err(error) => self.not_deleted(connection, &error),
        }
    }

    /// Messages go out all the same.
    fn not_deleted(&self, connection: &Connection, error: &ConnectionsError) {
        self.table.telemetry.row_not_deleted(&connection.id, error);
        if let Some(trouble) = self.table.source.kept(error) {
            self.health.warned(Part::RowDeletion, trouble);
        }
    }
}

impl PageLookup {
    /// The connections stored under this value, or every one: those of a lookup that may serve this
    /// page's records.
    pub async fn find(&self, key: Option<AttributeValue>) -> Vec<Arc<Connection>> {
        let Lookup { table, lookups, .. } = &*self.lookup;
        let begin = || table.clone().find(key.clone(), self.now).map(Arc::new).boxed().shared();
        loop {
            let (found, is_ours) = match lookups.turn(&key, self.newest, begin) {
                Turn::Found(found) => (found, false),
                Turn::Begins(lookup) => (lookups.found(&key, lookup).await, true),
                Turn::Waits(lookup) => (lookups.found(&key, lookup).await, false),
            };
            if let Some(kind) = lookups.serves(found.begun, self.newest) {
                if !is_ours {
                    table.telemetry.looked_up(kind);
                }
                return lookups.present(&found);
            }
        }
    }
}

impl Drop for PageLookup {
    fn drop(&mut self) {
        self.lookup.lookups.page_ends(self.newest);
    }
}
