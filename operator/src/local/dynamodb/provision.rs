//! Makes the tables of a plan where they are missing, and refuses one of another shape: to go on
//! with it would look like a notifier that finds nobody.

use serde_json::json;

use super::emulator::Dynamo;
use crate::local::error::LocalError;
use crate::local::plan::{Plan, TablePlan};

/// Makes what is missing, and gives the ARN of the followed stream.
pub async fn ensure(dynamo: &Dynamo, plan: &Plan) -> Result<String, LocalError> {
    for table in [&plan.items, &plan.connections] {
        ensure_table(dynamo, table).await?;
    }
    let failed = |source| LocalError::Table { what: "describing the table", source };
    let arn = dynamo.stream_arn(&plan.items.name).await.map_err(failed)?;
    arn.ok_or_else(|| LocalError::OtherTable(plan.items.name.clone()))
}

async fn ensure_table(dynamo: &Dynamo, table: &TablePlan) -> Result<(), LocalError> {
    let what = "making a table";
    let failed = |source| LocalError::Table { what, source };
    let listed = dynamo.ask("DescribeTable", json!({ "TableName": table.name })).await;
    match listed {
        Ok(described) if table.matches(&described["Table"]) => Ok(()),
        Ok(_) => Err(LocalError::OtherTable(table.name.clone())),
        Err(dynoxide::DynoxideError::ResourceNotFoundException(_)) => {
            dynamo.ask("CreateTable", table.create_request()).await.map_err(failed)?;
            Ok(())
        }
        Err(source) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::tests::fixture::origin;

    #[tokio::test]
    async fn tables_are_made_once_and_another_shape_is_refused() {
        let plan = Plan::of(&origin().spec, &[]).unwrap();
        let dynamo = Dynamo::open(None, plan.home.clone()).unwrap();
        let arn = ensure(&dynamo, &plan).await.unwrap();
        assert!(arn.starts_with(
            "arn:aws:dynamodb:ap-northeast-1:123456789012:table/sample-table-dev/stream/"
        ));
        assert_eq!(ensure(&dynamo, &plan).await.unwrap(), arn);
        let other = Plan::of(&origin().spec, &["id".to_owned()]).unwrap();
        let refused = ensure(&dynamo, &other).await.unwrap_err();
        assert!(refused.to_string().contains("sample-table-dev"), "{refused}");
    }
}
