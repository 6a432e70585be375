//! An embedded DynamoDB: the API's operations by name, JSON in and JSON out, as the service has
//! them on the wire. What the engine gets wrong in its streams is mended in `streams`.

use dynoxide::{Database, DynoxideError};
use serde_json::Value;

use super::json::{Answer, answer, internal};
use super::streams;
use crate::local::plan::AwsLocation;

/// The tables and their streams. Clones share them.
#[derive(Clone)]
pub struct Dynamo {
    database: Database,
    home: AwsLocation,
}

impl Dynamo {
    /// Opens the tables in a file, or in memory; their ARNs are of `home`.
    pub fn open(path: Option<&str>, home: AwsLocation) -> Answer<Self> {
        let database = match path {
            Some(path) => Database::new(path)?,
            None => Database::memory()?,
        };
        Ok(Self { database, home })
    }

    /// Runs an operation (`UpdateItem`, `GetRecords`, …) and blocks while SQLite works.
    /// `None`: there is no such operation.
    pub fn run(&self, operation: &str, body: &str) -> Option<Answer<String>> {
        let (db, home) = (&self.database, &self.home);
        Some(match operation {
            "DescribeStream" => streams::describe_stream(db, home, body),
            "GetShardIterator" => streams::get_shard_iterator(db, home, body),
            "GetRecords" => streams::get_records(db, home, body),
            "ListStreams" => {
                answer(body, |ask| db.list_streams(ask)).map(|json| self.move_arns(json))
            }
            "CreateTable" => {
                answer(body, |ask| db.create_table(ask)).map(|json| self.move_arns(json))
            }
            "DeleteTable" => {
                answer(body, |ask| db.delete_table(ask)).map(|json| self.move_arns(json))
            }
            "UpdateTable" => {
                answer(body, |ask| db.update_table(ask)).map(|json| self.move_arns(json))
            }
            "DescribeTable" => {
                answer(body, |ask| db.describe_table(ask)).map(|json| self.move_arns(json))
            }
            "ListTables" => answer(body, |ask| db.list_tables(ask)),
            "UpdateTimeToLive" => answer(body, |ask| db.update_time_to_live(ask)),
            "DescribeTimeToLive" => answer(body, |ask| db.describe_time_to_live(ask)),
            _ => return self.run_on_items(operation, body),
        })
    }

    fn run_on_items(&self, operation: &str, body: &str) -> Option<Answer<String>> {
        let db = &self.database;
        Some(match operation {
            "PutItem" => answer(body, |ask| db.put_item(ask)),
            "GetItem" => answer(body, |ask| db.get_item(ask)),
            "UpdateItem" => answer(body, |ask| db.update_item(ask)),
            "DeleteItem" => answer(body, |ask| db.delete_item(ask)),
            "Query" => answer(body, |ask| db.query(ask)),
            "Scan" => answer(body, |ask| db.scan(ask)),
            "BatchGetItem" => answer(body, |ask| db.batch_get_item(ask)),
            "BatchWriteItem" => answer(body, |ask| db.batch_write_item(ask)),
            "TransactGetItems" => answer(body, |ask| db.transact_get_items(ask)),
            "TransactWriteItems" => answer(body, |ask| db.transact_write_items(ask)),
            "ExecuteStatement" => answer(body, |ask| db.execute_statement(ask)),
            "ExecuteTransaction" => answer(body, |ask| db.execute_transaction(ask)),
            "BatchExecuteStatement" => answer(body, |ask| db.batch_execute_statement(ask)),
            _ => return None,
        })
    }

    /// Runs an operation off the async workers.
    pub async fn ask(&self, operation: &'static str, body: Value) -> Answer<Value> {
        let this = self.clone();
        let work = move || this.run(operation, &body.to_string());
        let answer = tokio::task::spawn_blocking(work).await.map_err(internal)?;
        let unknown = || DynoxideError::InternalServerError(format!("no operation {operation}"));
        serde_json::from_str(&answer.ok_or_else(unknown)??).map_err(internal)
    }

    /// The ARN of a table's stream, if it has one.
    pub async fn stream_arn(&self, table: &str) -> Answer<Option<String>> {
        let answer = self.ask("DescribeTable", serde_json::json!({ "TableName": table })).await?;
        Ok(answer["Table"]["LatestStreamArn"].as_str().map(str::to_owned))
    }

    /// The engine's ARNs are of a region of its own; the manifest's are of a real one. None of the
    /// answers this is used for holds an item, so no user's text is touched.
    fn move_arns(&self, json: String) -> String {
        json.replace(&dynoxide::streams::table_arn("").replace("table/", ""), &self.home.prefix())
    }
}
