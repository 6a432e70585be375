//! Deletes the rows of closed connections. A row that was written again must stay.
//!
//! A lookup requests only a few attributes of a row, and a queued message holds only the connection
//! id and the table's key. Before a row can be deleted, it must therefore be read again.
//!
//! 1. [`Lookup::read_row`] reads the whole row, consistently, *before* the last post to a
//!    connection that seems closed.
//! 2. [`Lookup::delete_stale_row`] deletes the row if every attribute is still the same.
//!
//! A row that was written before this read existed when the gateway reported the connection as
//! closed, so it is stale. A row that was written later differs and stays, even if the same
//! connection wrote it. It is not enough to compare the attributes of a lookup. A connection that
//! is established late stores itself again, and may write the same id under the same key.

use super::row::Connection;
use crate::delivery::connections::ConnectionsError;
use crate::delivery::lookup::Lookup;
use crate::model::Item;
use crate::telemetry::Component;

impl Lookup {
    /// Reads the whole row of a connection that seems closed, before the last post to it. Returns
    /// `None` if the row is deleted or cannot be read.
    pub async fn read_row(&self, connection: &Connection) -> Option<Item> {
        let query = &self.query;
        match query.connections.get(&query.schema.key_of(connection)).await {
            Ok(row) => row.filter(|row| query.schema.is_row_of(row, connection)),
            Err(error) => {
                self.report_deletion_failure(connection, &error);
                None
            }
        }
    }

    /// Excludes a closed connection from earlier lookups, and deletes its row unless the row was
    /// written again since [`Self::read_row`].
    pub async fn delete_stale_row(&self, connection: &Connection, row: Option<Item>) {
        let query = &self.query;
        self.cache.add_tombstone(&connection.id, query.sequence.latest());
        let Some(row) = row else {
            return;
        };
        match query.connections.delete_if_unchanged(&self.key_schema, &row).await {
            Ok(deleted) => {
                self.health.clear(&Component::RowDeletion);
                query.telemetry.row_deleted(&connection.id, deleted);
            }
            Err(error) => self.report_deletion_failure(connection, &error),
        }
    }

    /// Reports a stale row that stays. It is only a warning, because delivery continues.
    fn report_deletion_failure(&self, connection: &Connection, error: &ConnectionsError) {
        self.query.telemetry.row_not_deleted(&connection.id, error);
        if let Some(problem) = self.query.config.deletion_problem(error) {
            self.health.set_warning(Component::RowDeletion, problem);
        }
    }
}
