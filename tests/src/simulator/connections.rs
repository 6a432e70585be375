//! Simulated connections table: rows in pages, failing lookups, and an index that is missing at
//! times. It also holds the state of each connection, which API Gateway knows and the table does
//! not.

use futures::future::BoxFuture;
use stream_notifier::delivery::{
    ConnectionsError, ConnectionsErrorKind, ConnectionsTable, RowPage, Segment, TableDescription,
};
use stream_notifier::model::{AttributeValue, Item, KeySchema};

use super::boundary::Boundary;
use super::faults::active;
use super::worker_process::Call;
use super::world::State;
use crate::streams_model::Model;

#[derive(Debug)]
pub struct Connection {
    pub id: String,
    /// Value of the row's attribute `sk`.
    pub group: String,
    /// In milliseconds since 1970.
    pub stored_at: u64,
    /// From this time on, API Gateway accepts posts. `$connect` stores the row shortly before.
    pub established_at: u64,
    /// Whether the table has its row.
    pub is_stored: bool,
    pub is_closed: bool,
    /// Until this time, the client reads nothing, and posts are rejected with 429.
    pub slow_until: u64,
}

impl Connection {
    fn row(&self) -> Item {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        Item::from([
            ("connection_id".to_owned(), text(&self.id)),
            ("sk".to_owned(), text(&self.group)),
            ("created_at".to_owned(), text(&self.stored_at.to_string())),
        ])
    }
}

impl State {
    /// Draws whether a request to the table fails.
    fn table_fault(&mut self, model: &Model, action: &'static str) -> Result<(), ConnectionsError> {
        let chance = self.faults.chances.connections;
        let kind = match active(self.faults.connections, model.now()) {
            None if self.chance(chance) => ConnectionsErrorKind::Unavailable,
            // The table can be described, but its index cannot be queried.
            Some(ConnectionsErrorKind::Invalid) if action == "dynamodb:DescribeTable" => {
                return Ok(());
            }
            None => return Ok(()),
            Some(kind) => kind,
        };
        self.counts.add(match kind {
            ConnectionsErrorKind::NotFound => "connections table not found",
            ConnectionsErrorKind::AccessDenied => "connections table: access denied",
            ConnectionsErrorKind::NoCredentials => "connections table without credentials",
            ConnectionsErrorKind::UntrustedCertificate => "connections table not trusted",
            ConnectionsErrorKind::Invalid => "connections index missing",
            ConnectionsErrorKind::Unavailable => "connections table unavailable",
        });
        Err(ConnectionsError { action, kind, source: None })
    }

    fn describe_table(&mut self, model: &Model) -> Result<TableDescription, ConnectionsError> {
        self.table_fault(model, "dynamodb:DescribeTable")?;
        let key = |name: &str| KeySchema { partition: name.to_owned(), sort: None };
        let has_index =
            active(self.faults.connections, model.now()) != Some(ConnectionsErrorKind::Invalid);
        Ok(TableDescription {
            keys: key("connection_id"),
            indexes: has_index.then(|| ("sk-index".to_owned(), key("sk"))).into_iter().collect(),
            types: ["connection_id", "sk"].map(|name| (name.to_owned(), "S".to_owned())).into(),
        })
    }

    fn query(
        &mut self,
        model: &Model,
        value: &AttributeValue,
        attributes: &[String],
        start: Option<&Item>,
    ) -> Result<RowPage, ConnectionsError> {
        self.table_fault(model, "dynamodb:Query")?;
        let is_after = |connection: &&Connection| {
            start.is_none_or(|start| {
                start.get("connection_id") < connection.row().get("connection_id")
            })
        };
        let is_found = |connection: &&Connection| {
            connection.is_stored && *value == AttributeValue::S(connection.group.clone())
        };
        let mut found = self.connections.iter().filter(is_found).filter(is_after);
        let rows: Vec<_> = found.by_ref().take(self.rows_per_page).map(Connection::row).collect();
        let has_more = found.next().is_some();
        if has_more {
            self.counts.add("lookup of several pages");
        }
        let next = rows.last().filter(|_| has_more).cloned();
        let is_projected = |(name, _): &(String, AttributeValue)| attributes.contains(name);
        let projected = |row: Item| row.into_iter().filter(is_projected).collect();
        Ok(RowPage { rows: rows.into_iter().map(projected).collect(), next_key: next })
    }

    fn get(&mut self, model: &Model, key: &Item) -> Result<Option<Item>, ConnectionsError> {
        self.table_fault(model, "dynamodb:GetItem")?;
        let matches = |connection: &&Connection| {
            connection.is_stored
                && key.get("connection_id") == Some(&AttributeValue::S(connection.id.clone()))
        };
        Ok(self.connections.iter().find(matches).map(Connection::row))
    }

    fn delete(&mut self, model: &Model, row: &Item) -> Result<bool, ConnectionsError> {
        self.table_fault(model, "dynamodb:DeleteItem")?;
        let stored =
            |connection: &&mut Connection| connection.is_stored && connection.row() == *row;
        let Some(connection) = self.connections.iter_mut().find(stored) else { return Ok(false) };
        connection.is_stored = false;
        let (id, is_closed) = (connection.id.clone(), connection.is_closed);
        self.counts.add("row deleted");
        self.trace_line(model, || format!("row of {id} deleted"));
        if !is_closed {
            let details = format!("the row of {id}, which is not closed, was deleted");
            self.report_violation(model, "no message lost", details);
        }
        Ok(true)
    }
}

impl ConnectionsTable for Boundary {
    fn describe(&self) -> BoxFuture<'_, Result<TableDescription, ConnectionsError>> {
        Box::pin(async move {
            self.read(Call::DescribeTable, |model, state| state.describe_table(model)).await
        })
    }

    fn query<'a>(
        &'a self,
        value: &'a AttributeValue,
        attributes: &'a [String],
        start: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        Box::pin(async move {
            let response =
                |model: &Model, state: &mut State| state.query(model, value, attributes, start);
            self.read(Call::Query, response).await
        })
    }

    fn scan<'a>(
        &'a self,
        _: Segment,
        _: &'a [String],
        _: Option<&'a Item>,
    ) -> BoxFuture<'a, Result<RowPage, ConnectionsError>> {
        Box::pin(async move { unimplemented!("the simulated notifier has a partition key") })
    }

    fn get<'a>(&'a self, key: &'a Item) -> BoxFuture<'a, Result<Option<Item>, ConnectionsError>> {
        Box::pin(async move { self.read(Call::GetRow, |model, state| state.get(model, key)).await })
    }

    fn delete_if_unchanged<'a>(
        &'a self,
        _: &'a KeySchema,
        row: &'a Item,
    ) -> BoxFuture<'a, Result<bool, ConnectionsError>> {
        Box::pin(async move {
            let row = row.clone();
            self.write(Call::DeleteRow, move |model, state| state.delete(model, &row)).await
        })
    }
}
