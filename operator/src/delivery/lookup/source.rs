//! Where connections are stored, and what is wrong with that place, in the words of a condition.

use std::time::Duration;

use crate::backoff::Failing;
use crate::delivery::{ConnectionsError, ConnectionsErrorKind, TableDescription};
use crate::telemetry::Trouble;

/// Where connections are stored, as the spec says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
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

impl Source {
    /// Whether the table can be asked as the spec says.
    pub(super) fn check(&self, table: &TableDescription) -> Result<(), Trouble> {
        let keys = match &self.index {
            None => &table.keys,
            Some(name) => match table.indexes.iter().find(|(index, _)| index == name) {
                Some((_, keys)) => keys,
                None => return Err(self.no_index(name)),
            },
        };
        let Some(asked) = self.partition_key.as_ref().filter(|asked| **asked != keys.partition)
        else {
            return Ok(());
        };
        Err(Trouble {
            reason: "ConnectionsKeyMismatch",
            message: format!(
                "connections.partitionKey is {asked:?}, but the partition key of {} is {:?}",
                self.asked(),
                keys.partition
            ),
            stalled: true,
        })
    }

    /// What to tell of a failure; nothing while it may still pass by itself.
    pub(super) fn trouble(
        &self,
        error: &ConnectionsError,
        failing: &mut Failing,
    ) -> Option<Trouble> {
        let (asked, action) = (self.asked(), error.action);
        let has_lasted = failing.has_lasted();
        let (reason, message, stalled) = match error.kind {
            ConnectionsErrorKind::NotFound => (
                "ConnectionsNotFound",
                format!(
                    "there is no {asked}: create it, or correct connections.tableName or connections.region"
                ),
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

    /// What to tell of a row that could not be read or deleted, if a person must mend it.
    pub(super) fn kept(&self, error: &ConnectionsError) -> Option<Trouble> {
        let what = match error.kind {
            ConnectionsErrorKind::AccessDenied => "access denied",
            ConnectionsErrorKind::NoCredentials => "there are no AWS credentials",
            // Seldom, and the next change of its connection tries again.
            ConnectionsErrorKind::NotFound
            | ConnectionsErrorKind::Invalid
            | ConnectionsErrorKind::Unavailable => return None,
        };
        let message = format!(
            "the rows of connections that are gone stay in {}, and are posted to in vain: {what}, allow {} on it",
            self.stored(),
            error.action
        );
        Some(Trouble { reason: "RowsNotDeletable", message, stalled: false })
    }

    /// What to tell of rows that lack what a post needs.
    pub(super) fn unaddressed(&self) -> Trouble {
        let id = &self.connection_id_attribute;
        let asked = self.asked();
        let advice = match &self.index {
            Some(index) => format!(
                "the projection of index {index:?} must include it (KEYS_ONLY does not, INCLUDE where it is named), or correct connections.connectionIdAttribute"
            ),
            None => "correct connections.connectionIdAttribute".to_owned(),
        };
        let message = format!(
            "rows of {asked} have no connection id in {id:?}, and nobody is told: {advice}"
        );
        Trouble { reason: "RowsWithoutConnectionId", message, stalled: false }
    }

    /// What to tell of rows whose time cannot be in seconds.
    pub(super) fn in_milliseconds(&self, attribute: &str) -> Trouble {
        let message = format!(
            "the TTL that rows of {} have in {attribute:?} is in milliseconds, so that they never expire: write seconds since 1970",
            self.stored()
        );
        Trouble { reason: "RowTtlInMilliseconds", message, stalled: false }
    }

    fn asked(&self) -> String {
        match &self.index {
            Some(index) => format!("index {index:?} of {}", self.stored()),
            None => self.stored(),
        }
    }

    fn stored(&self) -> String {
        format!("table {:?} in {}", self.table, self.region)
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
