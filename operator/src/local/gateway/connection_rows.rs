//! The rows of the connections table, as the integrations of `$connect` and `$disconnect` write
//! them: id, lookup key and time of connection.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::Connections;
use crate::local::dynamodb::emulator::Dynamo;
use crate::local::dynamodb::json::Answer;
use crate::local::plan::TablePlan;

/// One connection's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The connection.
    pub id: String,
    /// What it is looked up by, unless everybody is told.
    pub lookup: Option<String>,
}

/// The connections table.
#[derive(Clone)]
pub struct Rows {
    dynamo: Dynamo,
    table: TablePlan,
    id_attribute: String,
    lookup_attribute: Option<String>,
}

impl Rows {
    /// The rows of the table that `connections` names.
    pub fn new(dynamo: Dynamo, table: TablePlan, connections: &Connections) -> Self {
        Self {
            dynamo,
            table,
            id_attribute: connections.connection_id_attribute.clone(),
            lookup_attribute: connections.partition_key.clone(),
        }
    }

    /// Stores a row.
    pub async fn put(&self, row: &Row, connected_at: Timestamp) -> Answer<()> {
        let mut item = Map::new();
        item.insert("created_at".to_owned(), json!({ "S": connected_at.to_string() }));
        self.fill(&mut item, row);
        let body = json!({ "TableName": self.table.name, "Item": item });
        self.dynamo.ask("PutItem", body).await.map(drop)
    }

    /// Deletes a row; one that is gone already is fine.
    pub async fn delete(&self, row: &Row) -> Answer<()> {
        let mut item = Map::new();
        self.fill(&mut item, row);
        self.delete_item(&Value::Object(item)).await
    }

    /// Deletes every row: those of sockets that closed with an earlier process.
    pub async fn clear(&self) -> Answer<()> {
        loop {
            let page = self.dynamo.ask("Scan", json!({ "TableName": self.table.name })).await?;
            for item in page["Items"].as_array().into_iter().flatten() {
                self.delete_item(item).await?;
            }
            if page["LastEvaluatedKey"].is_null() {
                return Ok(());
            }
        }
    }

    fn fill(&self, item: &mut Map<String, Value>, row: &Row) {
        if let (Some(name), Some(lookup)) = (&self.lookup_attribute, &row.lookup) {
            item.insert(name.clone(), json!({ "S": lookup }));
        }
        item.insert(self.id_attribute.clone(), json!({ "S": row.id }));
    }

    async fn delete_item(&self, item: &Value) -> Answer<()> {
        let key: Map<String, Value> = self
            .table
            .key_attributes()
            .into_iter()
            .map(|name| (name.to_owned(), item[name].clone()))
            .collect();
        let body = json!({ "TableName": self.table.name, "Key": key });
        self.dynamo.ask("DeleteItem", body).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::dynamodb::provision;
    use crate::local::plan::Plan;
    use crate::local::tests::fixture::{origin, spec_with};

    async fn rows(spec: &crate::api::StreamNotifierSpec) -> (Dynamo, Rows) {
        let plan = Plan::of(spec, &[]).unwrap();
        let dynamo = Dynamo::open(None, plan.home.clone()).unwrap();
        provision::ensure(&dynamo, &plan).await.unwrap();
        (dynamo.clone(), Rows::new(dynamo, plan.connections, &spec.connections))
    }

    async fn stored(dynamo: &Dynamo, rows: &Rows) -> Vec<Value> {
        let page = dynamo.ask("Scan", json!({ "TableName": rows.table.name })).await.unwrap();
        page["Items"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn a_row_is_what_the_origin_stores() {
        let keyed = spec_with(|spec| {
            spec["connections"].as_object_mut().unwrap().remove("indexName");
        });
        for spec in [origin().spec, keyed] {
            let (dynamo, rows) = rows(&spec).await;
            let row = Row { id: "abc=".to_owned(), lookup: Some("hoge".to_owned()) };
            let time = Timestamp::from_second(1_733_213_175).unwrap();
            rows.put(&row, time).await.unwrap();
            assert_eq!(
                stored(&dynamo, &rows).await,
                [json!({
                    "connection_id": {"S": "abc="},
                    "sk": {"S": "hoge"},
                    "created_at": {"S": "2024-12-03T08:06:15Z"},
                })]
            );
            rows.delete(&row).await.unwrap();
            rows.delete(&row).await.unwrap();
            assert!(stored(&dynamo, &rows).await.is_empty());
        }
    }

    #[tokio::test]
    async fn rows_of_an_earlier_run_are_cleared() {
        let (dynamo, rows) = rows(&origin().spec).await;
        for id in ["a", "b", "c"] {
            let row = Row { id: id.to_owned(), lookup: Some("hoge".to_owned()) };
            rows.put(&row, Timestamp::now()).await.unwrap();
        }
        rows.clear().await.unwrap();
        assert!(stored(&dynamo, &rows).await.is_empty());
    }
}
