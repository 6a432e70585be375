//! Rows of the connections table: connection id, lookup key and time of connection.
//!
//! `$connect` and `$disconnect` of the emulated API write them as a Lambda integration would.

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::api::Connections;
use crate::local::dynamodb::emulator::Emulator;
use crate::local::dynamodb::json::DynamoResult;
use crate::local::plan::TablePlan;

/// Row of one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionRow {
    /// Connection id.
    pub id: String,
    /// Value of the lookup key. `None` if the manifest sends each message to every connection.
    pub lookup: Option<String>,
}

/// Rows of the connections table. Clones share them.
#[derive(Clone)]
pub struct ConnectionRows {
    emulator: Emulator,
    table: TablePlan,
    id_attribute: String,
    lookup_attribute: Option<String>,
}

impl ConnectionRows {
    pub fn new(emulator: Emulator, table: TablePlan, connections: &Connections) -> Self {
        Self {
            emulator,
            table,
            id_attribute: connections.connection_id_attribute.clone(),
            lookup_attribute: connections.partition_key.clone(),
        }
    }

    pub async fn put(&self, row: &ConnectionRow, connected_at: Timestamp) -> DynamoResult<()> {
        let mut item = Map::new();
        item.insert("created_at".to_owned(), json!({ "S": connected_at.to_string() }));
        self.add_key_and_id(&mut item, row);
        let body = json!({ "TableName": self.table.name, "Item": item });
        self.emulator.request("PutItem", body).await.map(drop)
    }

    /// Deletes a row. Succeeds if the row does not exist.
    pub async fn delete(&self, row: &ConnectionRow) -> DynamoResult<()> {
        let mut item = Map::new();
        self.add_key_and_id(&mut item, row);
        self.delete_item(&Value::Object(item)).await
    }

    /// Deletes every row. They belong to connections of an earlier process.
    pub async fn clear(&self) -> DynamoResult<()> {
        loop {
            let page =
                self.emulator.request("Scan", json!({ "TableName": self.table.name })).await?;
            for item in page["Items"].as_array().into_iter().flatten() {
                self.delete_item(item).await?;
            }
            if page["LastEvaluatedKey"].is_null() {
                return Ok(());
            }
        }
    }

    fn add_key_and_id(&self, item: &mut Map<String, Value>, row: &ConnectionRow) {
        if let (Some(name), Some(lookup)) = (&self.lookup_attribute, &row.lookup) {
            item.insert(name.clone(), json!({ "S": lookup }));
        }
        item.insert(self.id_attribute.clone(), json!({ "S": row.id }));
    }

    async fn delete_item(&self, item: &Value) -> DynamoResult<()> {
        let key: Map<String, Value> = self
            .table
            .key_attributes()
            .into_iter()
            .map(|name| (name.to_owned(), item[name].clone()))
            .collect();
        let body = json!({ "TableName": self.table.name, "Key": key });
        self.emulator.request("DeleteItem", body).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::dynamodb::provision;
    use crate::local::plan::Plan;
    use crate::local::tests::fixture::{example_manifest, spec_with};

    async fn rows(spec: &crate::api::StreamNotifierSpec) -> (Emulator, ConnectionRows) {
        let plan = Plan::from_spec(spec, &[]).unwrap();
        let emulator = Emulator::open(None, plan.location.clone()).unwrap();
        provision::ensure_tables(&emulator, &plan).await.unwrap();
        (emulator.clone(), ConnectionRows::new(emulator, plan.connections, &spec.connections))
    }

    async fn stored(emulator: &Emulator, rows: &ConnectionRows) -> Vec<Value> {
        let page = emulator.request("Scan", json!({ "TableName": rows.table.name })).await.unwrap();
        page["Items"].as_array().unwrap().clone()
    }

    #[tokio::test]
    async fn stores_the_same_row_as_the_original_application() {
        let keyed = spec_with(|spec| {
            spec["connections"].as_object_mut().unwrap().remove("indexName");
        });
        for spec in [example_manifest().spec, keyed] {
            let (emulator, rows) = rows(&spec).await;
            let row = ConnectionRow { id: "abc=".to_owned(), lookup: Some("hoge".to_owned()) };
            let time = Timestamp::from_second(1_733_213_175).unwrap();
            rows.put(&row, time).await.unwrap();
            assert_eq!(
                stored(&emulator, &rows).await,
                [json!({
                    "connection_id": {"S": "abc="},
                    "sk": {"S": "hoge"},
                    "created_at": {"S": "2024-12-03T08:06:15Z"},
                })]
            );
            rows.delete(&row).await.unwrap();
            rows.delete(&row).await.unwrap();
            assert!(stored(&emulator, &rows).await.is_empty());
        }
    }

    #[tokio::test]
    async fn clears_rows_of_an_earlier_run() {
        let (emulator, rows) = rows(&example_manifest().spec).await;
        for id in ["a", "b", "c"] {
            let row = ConnectionRow { id: id.to_owned(), lookup: Some("hoge".to_owned()) };
            rows.put(&row, Timestamp::now()).await.unwrap();
        }
        rows.clear().await.unwrap();
        assert!(stored(&emulator, &rows).await.is_empty());
    }
}
