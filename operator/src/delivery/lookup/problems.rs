//! Condition messages about the connections table.

use super::connections_config::ConnectionsConfig;
use crate::delivery::connections::{ConnectionsError, ConnectionsErrorKind};
use crate::telemetry::{Problem, Reason};
use crate::timing::FailureTracker;

impl ConnectionsConfig {
    /// Records a failed request, and returns its problem. Returns `None` while the failure may pass
    /// by itself.
    pub(crate) fn request_problem(
        &self,
        error: &ConnectionsError,
        failures: &mut FailureTracker,
    ) -> Option<Problem> {
        let (target, action) = (self.target(), error.action);
        let has_lasted = failures.record_failure();
        let (reason, message) = match error.kind {
            ConnectionsErrorKind::NotFound => (
                Reason::ConnectionsNotFound,
                format!(
                    "{action} on {target} failed: not found; create it, or correct connections.tableName or connections.region"
                ),
            ),
            ConnectionsErrorKind::AccessDenied => (
                Reason::ConnectionsAccessDenied,
                format!(
                    "{action} on {target} failed: access denied; grant this permission to the operator"
                ),
            ),
            ConnectionsErrorKind::NoCredentials => {
                let request = format!("{action} on {target}");
                return Some(Problem::no_credentials(&request, error.source.as_ref()));
            }
            ConnectionsErrorKind::UntrustedCertificate => {
                return Some(Problem::untrusted_certificate(&format!("{action} on {target}")));
            }
            ConnectionsErrorKind::Invalid | ConnectionsErrorKind::Unavailable => {
                if !has_lasted {
                    return None;
                }
                (
                    Reason::ConnectionsUnavailable,
                    format!(
                        "{action} on {target} failed: no usable response; check the capacity of the table and the network"
                    ),
                )
            }
        };
        Some(Problem::new(reason, message))
    }

    /// Returns the problem of a row that could not be read or deleted, if you must act.
    pub(crate) fn deletion_problem(&self, error: &ConnectionsError) -> Option<Problem> {
        let (table, action) = (self.table_description(), error.action);
        match error.kind {
            ConnectionsErrorKind::AccessDenied => {
                let message = format!(
                    "rows of closed connections cannot be deleted from {table}: access denied; grant {action}"
                );
                Some(Problem::new(Reason::StaleRowDeletionDenied, message))
            }
            ConnectionsErrorKind::NoCredentials => {
                let request = format!("{action} on {table}");
                Some(Problem::no_credentials(&request, error.source.as_ref()))
            }
            ConnectionsErrorKind::UntrustedCertificate => {
                Some(Problem::untrusted_certificate(&format!("{action} on {table}")))
            }
            // These pass by themselves, and the connection's next message causes another attempt.
            ConnectionsErrorKind::NotFound
            | ConnectionsErrorKind::Invalid
            | ConnectionsErrorKind::Unavailable => None,
        }
    }

    /// Problem of rows that lack a usable connection id.
    pub(crate) fn connection_id_missing(&self) -> Problem {
        let (id, target) = (&self.connection_id_attribute, self.target());
        let action = match &self.index {
            Some(_) => {
                "add it to the projection of the index (KEYS_ONLY has keys only), or correct connections.connectionIdAttribute"
            }
            None => "correct connections.connectionIdAttribute",
        };
        let message = format!("rows of {target} are skipped: no connection id in {id:?}; {action}");
        Problem::new(Reason::ConnectionIdMissing, message)
    }

    /// Problem of rows whose TTL cannot be in seconds.
    pub(crate) fn invalid_ttl_unit(&self, attribute: &str) -> Problem {
        let table = self.table_description();
        let message = format!(
            "rows of {table} never expire: their TTL in {attribute:?} is in milliseconds; write seconds since 1970"
        );
        Problem::new(Reason::InvalidTtlUnit, message)
    }

    /// Problem of an index that does not exist.
    pub(crate) fn index_not_found(&self, index: &str) -> Problem {
        let message = format!(
            "lookups in {} failed: it has no index {index:?}; create it, or correct connections.indexName",
            self.table_description()
        );
        Problem::new(Reason::ConnectionsIndexNotFound, message)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::delivery::connections::TableDescription;
    use crate::model::KeySchema;
    use crate::telemetry::health::assert_message_form;

    fn config(index: Option<&str>) -> ConnectionsConfig {
        ConnectionsConfig {
            region: "eu-west-1".to_owned(),
            table: "connections".to_owned(),
            index: index.map(str::to_owned),
            partition_key: Some("sk".to_owned()),
            connection_id_attribute: "connection_id".to_owned(),
            ttl_attribute: Some("ttl".to_owned()),
            cache_ttl: Duration::ZERO,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn names_the_failure_the_cause_and_the_action() {
        let keys = KeySchema { partition: "pk".to_owned(), sort: None };
        let table = TableDescription { keys, indexes: vec![], types: [].into() };
        let mut failures = FailureTracker::new(Duration::ZERO);
        failures.record_failure();
        tokio::time::sleep(Duration::from_secs(120)).await;
        let mut problems = Vec::new();
        for index in [None, Some("sk-index")] {
            let config = config(index);
            problems.extend([config.connection_id_missing(), config.invalid_ttl_unit("ttl")]);
            problems.extend(config.check_table(&table).err());
            for kind in [
                ConnectionsErrorKind::NotFound,
                ConnectionsErrorKind::AccessDenied,
                ConnectionsErrorKind::NoCredentials,
                ConnectionsErrorKind::UntrustedCertificate,
                ConnectionsErrorKind::Invalid,
                ConnectionsErrorKind::Unavailable,
            ] {
                let error = ConnectionsError { action: "dynamodb:Query", kind, source: None };
                problems.extend(config.request_problem(&error, &mut failures));
                problems.extend(config.deletion_problem(&error));
            }
        }
        assert_eq!(problems.len(), 2 * (3 + 6 + 3));
        for Problem { message, .. } in problems {
            let names = ["\"connections\"", "\"sk-index\"", "\"connection_id\"", "eu-west-1"];
            assert_message_form(&message, &names);
        }
    }
}
