//! Creates the tables of a plan, and rejects existing tables that differ from it.
//!
//! A table with another key or index would look like a notifier that finds no connections.

use serde_json::json;

use super::emulator::Emulator;
use crate::local::error::LocalError;
use crate::local::plan::{Plan, TablePlan};

/// Creates the missing tables, and returns the ARN of the stream to read.
pub async fn ensure_tables(emulator: &Emulator, plan: &Plan) -> Result<String, LocalError> {
    for table in [&plan.items, &plan.connections] {
        ensure_table(emulator, table).await?;
    }
    let failed = |source| LocalError::Table { action: "describe the table", source };
    let arn = emulator.stream_arn(&plan.items.name).await.map_err(failed)?;
    arn.ok_or_else(|| LocalError::TableMismatch(plan.items.name.clone()))
}

async fn ensure_table(emulator: &Emulator, table: &TablePlan) -> Result<(), LocalError> {
    let action = "create a table";
    let failed = |source| LocalError::Table { action, source };
    let described = emulator.request("DescribeTable", json!({ "TableName": table.name })).await;
    match described {
        Ok(response) if table.matches(&response["Table"]) => Ok(()),
        Ok(_) => Err(LocalError::TableMismatch(table.name.clone())),
        Err(dynoxide::DynoxideError::ResourceNotFoundException(_)) => {
            emulator.request("CreateTable", table.create_table_request()).await.map_err(failed)?;
            Ok(())
        }
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::example_manifest;

    #[tokio::test]
    async fn creates_tables_once_and_rejects_another_key() {
        let plan = Plan::from_spec(&example_manifest().spec, &[]).unwrap();
        let emulator = Emulator::open(None, plan.location.clone()).unwrap();
        let arn = ensure_tables(&emulator, &plan).await.unwrap();
        assert!(arn.starts_with(
            "arn:aws:dynamodb:ap-northeast-1:123456789012:table/sample-table-dev/stream/"
        ));
        assert_eq!(ensure_tables(&emulator, &plan).await.unwrap(), arn);
        let other = Plan::from_spec(&example_manifest().spec, &["id".to_owned()]).unwrap();
        let error = ensure_tables(&emulator, &other).await.unwrap_err();
        assert!(error.to_string().contains("sample-table-dev"), "{error}");
    }
}
