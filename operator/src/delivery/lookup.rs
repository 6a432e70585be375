//! Finds the connections that receive the message of a record.
//!
//! A record uses a lookup that began after its page was read, so it includes every connection whose
//! row was stored before the change. Only `connections.cacheSeconds` allows an older lookup.
//! Records with the same key share a lookup where this rule allows it. A lookup that fails is
//! retried until it succeeds. It holds its records, reports the problem, and drops nothing.

pub mod cache;
pub mod connections_config;
pub mod problems;
pub mod query;
pub mod row;
pub mod stale_rows;

use std::sync::Arc;

use futures::FutureExt as _;
use tokio::time::sleep;

use super::connections::{ConnectionsTable, TableDescription};
use crate::delivery::lookup::cache::{CacheEntry, LookupCache};
use crate::delivery::lookup::connections_config::ConnectionsConfig;
use crate::delivery::lookup::query::{ConnectionsQuery, MAX_BACKOFF};
use crate::delivery::lookup::row::{Connection, RowSchema};
use crate::model::{AttributeValue, KeySchema, UnixSeconds};
use crate::telemetry::{Component, Health, NotifierTelemetry};
use crate::timing::{FailureTracker, JitterRng};

/// Finds the connections of one notifier, and deletes their stale rows.
#[derive(Debug)]
pub struct Lookup {
    query: Arc<ConnectionsQuery>,
    cache: LookupCache,
    key_schema: KeySchema,
    /// Type of the partition key that is queried: `S`, `N` or `B`.
    key_type: Option<String>,
    health: Arc<Health>,
}

/// Lookups for the records of one page.
#[derive(Debug)]
pub struct LookupSession {
    lookup: Arc<Lookup>,
    /// Number of the latest lookup that had begun when the page was read.
    latest_lookup: u64,
    now: UnixSeconds,
}

/// The lookup value does not have the type of the partition key.
#[derive(Debug, thiserror::Error)]
#[error("the value has type {actual}, but the partition key has type {expected}")]
pub struct KeyTypeMismatch {
    pub actual: &'static str,
    pub expected: String,
}

impl Lookup {
    /// Opens the connections table. Retries until table and index exist and can be described.
    pub async fn open(
        connections: Arc<dyn ConnectionsTable>,
        config: ConnectionsConfig,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
        rng: Arc<JitterRng>,
    ) -> Self {
        let table = describe_table(&*connections, &config, &health, &telemetry, &rng).await;
        let key_type = config.partition_key.as_ref().and_then(|key| table.types.get(key)).cloned();
        let (cache, key_schema) = (LookupCache::new(config.cache_ttl), table.keys);
        let row_schema = RowSchema::new(key_schema.clone(), &config);
        let query =
            ConnectionsQuery::new(connections, config, row_schema, health.clone(), telemetry, rng);
        Self { query: Arc::new(query), cache, key_schema, key_type, health }
    }

    /// Checks that the table can be queried with this value, which needs the type of its key.
    pub fn check_key_type(&self, value: Option<&AttributeValue>) -> Result<(), KeyTypeMismatch> {
        match (&self.key_type, value) {
            (Some(key_type), Some(value)) if *key_type != value.kind() => {
                Err(KeyTypeMismatch { actual: value.kind(), expected: key_type.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Begins the lookups of a page that was just read, at `now`.
    pub fn begin_page(self: &Arc<Self>, now: UnixSeconds) -> LookupSession {
        let latest_lookup = self.query.sequence.latest();
        self.cache.begin_page(latest_lookup);
        LookupSession { lookup: self.clone(), latest_lookup, now }
    }
}

/// Describes the table until it matches the spec, and reports why it does not.
async fn describe_table(
    connections: &dyn ConnectionsTable,
    config: &ConnectionsConfig,
    health: &Health,
    telemetry: &NotifierTelemetry,
    rng: &JitterRng,
) -> TableDescription {
    let mut failures = FailureTracker::new(MAX_BACKOFF);
    loop {
        let problem = match connections.describe().await {
            Ok(table) => match config.check_table(&table) {
                Ok(()) => {
                    health.clear(&Component::Connections);
                    return table;
                }
                Err(problem) => Some(problem),
            },
            Err(error) => {
                telemetry.request_failed(&error);
                config.request_problem(&error, &mut failures)
            }
        };
        if let Some(problem) = problem {
            health.set_problem(Component::Connections, problem);
        }
        sleep(failures.next_wait(rng)).await;
    }
}

impl LookupSession {
    /// Finds the connections stored under this key, or every connection for `None`.
    pub async fn find_connections(&self, key: Option<AttributeValue>) -> Vec<Arc<Connection>> {
        let Lookup { query, cache, .. } = &*self.lookup;
        let start =
            || query.clone().find_connections(key.clone(), self.now).map(Arc::new).boxed().shared();
        loop {
            let (result, is_own) = match cache.get_or_start(&key, self.latest_lookup, start) {
                CacheEntry::Hit(result) => (result, false),
                CacheEntry::Started(lookup) => (cache.wait(&key, lookup).await, true),
                CacheEntry::Pending(lookup) => (cache.wait(&key, lookup).await, false),
            };
            if let Some(kind) = cache.reuse_kind(result.start, self.latest_lookup) {
                if !is_own {
                    query.telemetry.connections_looked_up(kind);
                }
                return cache.without_gone(&result);
            }
        }
    }
}

impl Drop for LookupSession {
    fn drop(&mut self) {
        self.lookup.cache.end_page(self.latest_lookup);
    }
}
