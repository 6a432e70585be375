//! The DynamoDB client: its requests, and how it classifies responses.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use stream_notifier::aws::DynamoDbConnections;
use stream_notifier::delivery::{
    ConnectionsConfig, ConnectionsError, ConnectionsErrorKind, ConnectionsTable, Segment,
};
use stream_notifier::model::{AttributeValue, Item, KeySchema};

use super::scripted_service::{Response, ScriptedService, error};

/// A client for the table, or for its index, and the service behind it.
async fn start(
    index: Option<&str>,
    responses: Vec<Response>,
) -> Result<(Arc<ScriptedService>, DynamoDbConnections)> {
    let (service, aws) = ScriptedService::start(responses).await?;
    Ok((service, DynamoDbConnections::new(&aws, config(index))))
}

fn config(index: Option<&str>) -> ConnectionsConfig {
    ConnectionsConfig {
        region: "eu-central-1".to_owned(),
        table: "connections".to_owned(),
        index: index.map(str::to_owned),
        partition_key: Some("sk".to_owned()),
        connection_id_attribute: "connection_id".to_owned(),
        ttl_attribute: Some("ttl".to_owned()),
        cache_ttl: Duration::ZERO,
    }
}

fn attributes() -> Vec<String> {
    ["connection_id", "ttl"].map(str::to_owned).into()
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn key() -> Item {
    Item::from([("connection_id".to_owned(), text("a="))])
}

/// A page with one row. Another page follows.
fn page() -> Response {
    let row = json!({"connection_id": {"S": "a="}, "ttl": {"N": "1790000000"}});
    (200, json!({"Items": [row], "Count": 1, "LastEvaluatedKey": {"connection_id": {"S": "a="}}}))
}

#[tokio::test]
async fn queries_the_needed_attributes_of_an_index_in_its_region() -> Result<()> {
    let (service, table) = start(Some("sk-index"), vec![page()]).await?;
    let page = table.query(&text("hoge"), &attributes(), Some(&key())).await?;
    let request = service.last_request();
    assert_eq!(request.target, "DynamoDB_20120810.Query");
    assert!(request.authorization.contains("/eu-central-1/dynamodb/"), "{}", request.authorization);
    assert_eq!(
        request.body,
        json!({
            "TableName": "connections",
            "IndexName": "sk-index",
            "ConsistentRead": false,
            "KeyConditionExpression": "#key = :value",
            "ProjectionExpression": "#a0, #a1",
            "ExpressionAttributeNames": {"#key": "sk", "#a0": "connection_id", "#a1": "ttl"},
            "ExpressionAttributeValues": {":value": {"S": "hoge"}},
            "ExclusiveStartKey": {"connection_id": {"S": "a="}},
        })
    );
    let ttl = AttributeValue::N("1790000000".to_owned());
    let row = [("connection_id".to_owned(), text("a=")), ("ttl".to_owned(), ttl)];
    assert_eq!((page.rows, page.next_key), (vec![Item::from(row)], Some(key())));
    Ok(())
}

#[tokio::test]
async fn reads_a_table_consistently() -> Result<()> {
    let (service, table) = start(None, vec![page(), page()]).await?;
    table.query(&text("hoge"), &attributes(), None).await?;
    let body = service.last_request().body;
    assert_eq!((&body["ConsistentRead"], &body["IndexName"]), (&json!(true), &Value::Null));
    assert_eq!(body["ExclusiveStartKey"], Value::Null);
    table.scan(Segment { number: 0, total: 1 }, &attributes(), None).await?;
    assert_eq!(service.last_request().body["ConsistentRead"], json!(true));
    Ok(())
}

#[tokio::test]
async fn scans_one_segment() -> Result<()> {
    let (service, table) = start(Some("sk-index"), vec![page()]).await?;
    let page = table.scan(Segment { number: 3, total: 8 }, &attributes(), Some(&key())).await?;
    let request = service.last_request();
    assert_eq!(request.target, "DynamoDB_20120810.Scan");
    assert_eq!(
        request.body,
        json!({
            "TableName": "connections",
            "IndexName": "sk-index",
            "ConsistentRead": false,
            "Segment": 3,
            "TotalSegments": 8,
            "ProjectionExpression": "#a0, #a1",
            "ExpressionAttributeNames": {"#a0": "connection_id", "#a1": "ttl"},
            "ExclusiveStartKey": {"connection_id": {"S": "a="}},
        })
    );
    assert_eq!((page.rows.len(), page.next_key), (1, Some(key())));
    Ok(())
}

#[tokio::test]
async fn reads_a_whole_row_and_deletes_it_if_unchanged() -> Result<()> {
    let row = json!({"connection_id": {"S": "a="}, "sk": {"S": "hoge"}, "tags": {"SS": ["x"]}});
    let responses = vec![(200, json!({"Item": row})), (200, json!({})), (200, json!({}))];
    let (service, table) = start(Some("sk-index"), responses).await?;
    let row = table.get(&key()).await?.unwrap();
    let request = service.last_request();
    assert_eq!(request.target, "DynamoDB_20120810.GetItem");
    let id = json!({"connection_id": {"S": "a="}});
    assert_eq!(
        request.body,
        json!({"TableName": "connections", "Key": id, "ConsistentRead": true})
    );
    let keys = KeySchema { partition: "connection_id".to_owned(), sort: None };
    assert!(table.delete_if_unchanged(&keys, &row).await?);
    assert_eq!(
        service.last_request().body,
        json!({
            "TableName": "connections",
            "Key": id,
            "ConditionExpression": "#n0 = :v0 AND #n1 = :v1 AND #n2 = :v2",
            "ExpressionAttributeNames": {"#n0": "connection_id", "#n1": "sk", "#n2": "tags"},
            "ExpressionAttributeValues":
                {":v0": {"S": "a="}, ":v1": {"S": "hoge"}, ":v2": {"SS": ["x"]}},
        })
    );
    assert_eq!(table.get(&key()).await?, None, "the row is deleted");
    Ok(())
}

#[tokio::test]
async fn names_the_missing_permission() -> Result<()> {
    let denied = || {
        let code = "com.amazon.coral.service#AccessDeniedException";
        (400, json!({"__type": code, "message": "because"}))
    };
    let changed = error("ConditionalCheckFailedException");
    let responses = vec![denied(), denied(), denied(), denied(), changed];
    let (_service, table) = start(None, responses).await?;
    let keys = KeySchema { partition: "connection_id".to_owned(), sort: None };
    let classify = |error: ConnectionsError| (error.action, error.kind);
    let segment = Segment { number: 0, total: 8 };
    let errors = [
        classify(table.query(&text("hoge"), &attributes(), None).await.unwrap_err()),
        classify(table.scan(segment, &attributes(), None).await.unwrap_err()),
        classify(table.get(&key()).await.unwrap_err()),
        classify(table.delete_if_unchanged(&keys, &key()).await.unwrap_err()),
    ];
    let operations = ["Query", "Scan", "GetItem", "DeleteItem"];
    for ((action, kind), operation) in errors.into_iter().zip(operations) {
        assert_eq!(action, format!("dynamodb:{operation}"));
        assert_eq!(kind, ConnectionsErrorKind::AccessDenied);
    }
    assert!(!table.delete_if_unchanged(&keys, &key()).await?, "the row has changed");
    Ok(())
}
