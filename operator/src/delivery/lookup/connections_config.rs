//! Where connections are stored, and the condition messages about problems of that place.

use std::time::Duration;

use crate::api::Reason;
use crate::delivery::connections::TableDescription;
use crate::telemetry::Problem;

/// Where connections are stored, as the spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionsConfig {
    /// The region of the table.
    pub region: String,
    /// The table, named in conditions.
    pub table: String,
    /// The index that is asked, if not the table.
    pub index: Option<String>,
    /// The partition key that is asked; `None` asks for every row.
    pub partition_key: Option<String>,
    /// The row's attribute that holds the connection id.
    pub connection_id_attribute: String,
    /// The row's attribute that says when it is out of date.
    pub ttl_attribute: Option<String>,
    /// For how long a lookup may serve records that are read after it began.
    pub cache: Duration,
}

impl ConnectionsConfig {
    /// Whether the table can be asked as the spec says.
    pub(crate) fn check_table(&self, table: &TableDescription) -> Result<(), Problem> {
        let keys = match &self.index {
            None => &table.keys,
            Some(name) => match table.indexes.iter().find(|(index, _)| index == name) {
                Some((_, keys)) => keys,
                None => return Err(self.index_not_found(name)),
            },
        };
        let Some(asked) = self.partition_key.as_ref().filter(|asked| **asked != keys.partition)
        else {
            return Ok(());
        };
        let message = format!(
            "lookups in {} failed: its partition key is {:?}, and connections.partitionKey is {asked:?}; correct connections.partitionKey",
            self.target(),
            keys.partition
        );
        Err(Problem::new(Reason::ConnectionsKeyMismatch, message))
    }

    /// The index or table that lookups query, as conditions name it.
    pub(crate) fn target(&self) -> String {
        match &self.index {
            Some(index) => format!("index {index:?} of {}", self.table_description()),
            None => self.table_description(),
        }
    }

    /// The table, as conditions name it.
    pub(crate) fn table_description(&self) -> String {
        format!("table {:?} in {}", self.table, self.region)
    }
}
