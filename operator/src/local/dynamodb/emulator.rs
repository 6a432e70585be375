//! Embedded DynamoDB: operations by name, with JSON requests and responses as on the wire.
//!
//! The module `streams` corrects the differences between the engine's streams and those of AWS.

use dynoxide::{Database, DynoxideError};
use serde_json::Value;

use super::json::{DynamoResult, internal_error, respond};
use super::streams;
use crate::local::plan::AwsLocation;

/// Tables and streams. Clones share them.
#[derive(Clone)]
pub struct Emulator {
    database: Database,
    location: AwsLocation,
}

impl Emulator {
    /// Opens the tables in a file or in memory. Their ARNs have the partition, region and account of
    /// `location`.
    pub fn open(path: Option<&str>, location: AwsLocation) -> DynamoResult<Self> {
        let database = match path {
            Some(path) => Database::new(path)?,
            None => Database::memory()?,
        };
        Ok(Self { database, location })
    }

    /// Executes an operation such as `UpdateItem` or `GetRecords`. Blocks while SQLite works.
    ///
    /// Returns `None` if no such operation exists.
    pub fn execute(&self, operation: &str, body: &str) -> Option<DynamoResult<String>> {
        let (db, location) = (&self.database, &self.location);
        Some(match operation {
            "DescribeStream" => streams::describe_stream(db, location, body),
            "GetShardIterator" => streams::get_shard_iterator(db, location, body),
            "GetRecords" => streams::get_records(db, location, body),
            "ListStreams" => respond(body, |request| db.list_streams(request))
                .map(|json| self.relocate_arns(json)),
            "CreateTable" => respond(body, |request| db.create_table(request))
                .map(|json| self.relocate_arns(json)),
            "DeleteTable" => respond(body, |request| db.delete_table(request))
                .map(|json| self.relocate_arns(json)),
            "UpdateTable" => respond(body, |request| db.update_table(request))
                .map(|json| self.relocate_arns(json)),
            "DescribeTable" => respond(body, |request| db.describe_table(request))
                .map(|json| self.relocate_arns(json)),
            "ListTables" => respond(body, |request| db.list_tables(request)),
            "UpdateTimeToLive" => respond(body, |request| db.update_time_to_live(request)),
            "DescribeTimeToLive" => respond(body, |request| db.describe_time_to_live(request)),
            _ => return self.execute_on_items(operation, body),
        })
    }

    fn execute_on_items(&self, operation: &str, body: &str) -> Option<DynamoResult<String>> {
        let db = &self.database;
        Some(match operation {
            "PutItem" => respond(body, |request| db.put_item(request)),
            "GetItem" => respond(body, |request| db.get_item(request)),
            "UpdateItem" => respond(body, |request| db.update_item(request)),
            "DeleteItem" => respond(body, |request| db.delete_item(request)),
            "Query" => respond(body, |request| db.query(request)),
            "Scan" => respond(body, |request| db.scan(request)),
            "BatchGetItem" => respond(body, |request| db.batch_get_item(request)),
            "BatchWriteItem" => respond(body, |request| db.batch_write_item(request)),
            "TransactGetItems" => respond(body, |request| db.transact_get_items(request)),
            "TransactWriteItems" => respond(body, |request| db.transact_write_items(request)),
            "ExecuteStatement" => respond(body, |request| db.execute_statement(request)),
            "ExecuteTransaction" => respond(body, |request| db.execute_transaction(request)),
            "BatchExecuteStatement" => respond(body, |request| db.batch_execute_statement(request)),
            _ => return None,
        })
    }

    /// Executes an operation on a blocking thread, so that SQLite does not block the async runtime.
    pub async fn request(&self, operation: &'static str, body: Value) -> DynamoResult<Value> {
        let this = self.clone();
        let execute = move || this.execute(operation, &body.to_string());
        let response = tokio::task::spawn_blocking(execute).await.map_err(internal_error)?;
        let unknown =
            || DynoxideError::InternalServerError(format!("unknown operation {operation}"));
        serde_json::from_str(&response.ok_or_else(unknown)??).map_err(internal_error)
    }

    /// Returns the ARN of a table's stream, if it has one.
    pub async fn stream_arn(&self, table: &str) -> DynamoResult<Option<String>> {
        let request = serde_json::json!({ "TableName": table });
        let response = self.request("DescribeTable", request).await?;
        Ok(response["Table"]["LatestStreamArn"].as_str().map(str::to_owned))
    }

    /// Replaces the fixed location in the engine's ARNs by that of the manifest.
    ///
    /// Use it only for responses without items, because it replaces text anywhere.
    fn relocate_arns(&self, json: String) -> String {
        json.replace(
            &dynoxide::streams::table_arn("").replace("table/", ""),
            &self.location.arn_prefix(),
        )
    }
}
