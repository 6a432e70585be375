//! Where the connections are stored.

use std::time::Duration;

use crate::delivery::connections::TableDescription;
use crate::telemetry::{Problem, Reason};

/// Where the connections are stored, from `connections` of the spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionsConfig {
    pub region: String,
    pub table: String,
    /// The index that lookups query. `None` queries the table.
    pub index: Option<String>,
    /// The partition key that lookups query. `None` reads every row.
    pub partition_key: Option<String>,
    pub connection_id_attribute: String,
    pub ttl_attribute: Option<String>,
    /// How long after its start a lookup serves records that are read later. 0 disables the cache.
    pub cache_ttl: Duration,
}

impl ConnectionsConfig {
    /// Checks that the table has the index and the partition key of the spec.
    pub(crate) fn check_table(&self, table: &TableDescription) -> Result<(), Problem> {
        let keys = match &self.index {
            None => &table.keys,
            Some(name) => match table.indexes.iter().find(|(index, _)| index == name) {
                Some((_, keys)) => keys,
                None => return Err(self.index_not_found(name)),
            },
        };
        let Some(requested) = self.partition_key.as_ref().filter(|key| **key != keys.partition)
        else {
            return Ok(());
        };
        let message = format!(
            "lookups in {} failed: its partition key is {:?}, and connections.partitionKey is {requested:?}; correct connections.partitionKey",
            self.target(),
            keys.partition
        );
        Err(Problem::new(Reason::ConnectionsKeyMismatch, message))
    }

    /// The index or table that lookups query, for condition messages.
    pub(crate) fn target(&self) -> String {
        match &self.index {
            Some(index) => format!("index {index:?} of {}", self.table_description()),
            None => self.table_description(),
        }
    }

    /// The table, for condition messages.
    pub(crate) fn table_description(&self) -> String {
        format!("table {:?} in {}", self.table, self.region)
    }
}
