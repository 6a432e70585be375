//! The real DynamoDB client on scripted HTTP answers: what it asks for, of whom, and what it makes of
//! what comes back.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use stream_notifier::aws::{AwsConfig, DynamoDbConnections};
use stream_notifier::delivery::{
    ConnectionsConfig, ConnectionsError, ConnectionsErrorKind, ConnectionsTable, Segment,
};
use stream_notifier::model::{AttributeValue, Item, KeySchema};
use tokio::net::TcpListener;

/// A service that answers as it is told, in turn, and notes what it was asked.
#[derive(Default)]
struct Service {
    answers: Mutex<VecDeque<(u16, Value)>>,
    asked: Mutex<Vec<Asked>>,
}

/// One request.
#[derive(Clone)]
struct Asked {
    call: String,
    body: Value,
    authorization: String,
}

impl Service {
    async fn start(
        source: ConnectionsConfig,
        answers: Vec<(u16, Value)>,
    ) -> Result<(Arc<Self>, DynamoDbConnections)> {
        let service = Arc::new(Self { answers: Mutex::new(answers.into()), ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let routes = Router::new().fallback(answer).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let aws = AwsConfig::local(&endpoint).await;
        Ok((service, DynamoDbConnections::new(&aws, source)))
    }

    fn asked(&self) -> Asked {
        self.asked.lock().unwrap().pop().expect("it was asked")
    }
}

async fn answer(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> impl IntoResponse + use<> {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    service.asked.lock().unwrap().push(Asked {
        call: header("x-amz-target"),
        body: serde_json::from_slice(&body).unwrap(),
        authorization: header("authorization"),
    });
    let (status, answer) = service.answers.lock().unwrap().pop_front().unwrap();
    (StatusCode::from_u16(status).unwrap(), axum::Json(answer))
}

fn source(index: Option<&str>) -> ConnectionsConfig {
    ConnectionsConfig {
        region: "eu-central-1".to_owned(),
        table: "connections".to_owned(),
        index: index.map(str::to_owned),
        partition_key: Some("sk".to_owned()),
        connection_id_attribute: "connection_id".to_owned(),
        ttl_attribute: Some("ttl".to_owned()),
        cache: Duration::ZERO,
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

/// A page of one row, after which there is another.
fn page() -> (u16, Value) {
    let row = json!({"connection_id": {"S": "a="}, "ttl": {"N": "1790000000"}});
    (200, json!({"Items": [row], "Count": 1, "LastEvaluatedKey": {"connection_id": {"S": "a="}}}))
}

#[tokio::test]
async fn a_query_asks_an_index_for_what_is_needed_and_in_its_region() -> Result<()> {
    let (service, table) = Service::start(source(Some("sk-index")), vec![page()]).await?;
    let found = table.query(&text("hoge"), &attributes(), Some(&key())).await?;
    let asked = service.asked();
    assert_eq!(asked.call, "DynamoDB_20120810.Query");
    assert!(asked.authorization.contains("/eu-central-1/dynamodb/"), "{}", asked.authorization);
    assert_eq!(
        asked.body,
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
    assert_eq!((found.rows, found.next_key), (vec![Item::from(row)], Some(key())));
    Ok(())
}

#[tokio::test]
async fn a_table_is_read_consistently() -> Result<()> {
    let (service, table) = Service::start(source(None), vec![page(), page()]).await?;
    table.query(&text("hoge"), &attributes(), None).await?;
    let body = service.asked().body;
    assert_eq!((&body["ConsistentRead"], &body["IndexName"]), (&json!(true), &Value::Null));
    assert_eq!(body["ExclusiveStartKey"], Value::Null);
    table.scan(Segment { number: 0, total: 1 }, &attributes(), None).await?;
    assert_eq!(service.asked().body["ConsistentRead"], json!(true));
    Ok(())
}

#[tokio::test]
async fn a_scan_asks_for_its_segment() -> Result<()> {
    let (service, table) = Service::start(source(Some("sk-index")), vec![page()]).await?;
    let found = table.scan(Segment { number: 3, total: 8 }, &attributes(), Some(&key())).await?;
    let asked = service.asked();
    assert_eq!(asked.call, "DynamoDB_20120810.Scan");
    assert_eq!(
        asked.body,
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
    assert_eq!((found.rows.len(), found.next_key), (1, Some(key())));
    Ok(())
}

#[tokio::test]
async fn a_row_is_read_whole_and_consistently_and_deleted_as_it_was_read() -> Result<()> {
    let row = json!({"connection_id": {"S": "a="}, "sk": {"S": "hoge"}, "tags": {"SS": ["x"]}});
    let answers = vec![(200, json!({"Item": row})), (200, json!({})), (200, json!({}))];
    let (service, table) = Service::start(source(Some("sk-index")), answers).await?;
    let row = table.get(&key()).await?.unwrap();
    let asked = service.asked();
    assert_eq!(asked.call, "DynamoDB_20120810.GetItem");
    let id = json!({"connection_id": {"S": "a="}});
    assert_eq!(asked.body, json!({"TableName": "connections", "Key": id, "ConsistentRead": true}));
    let keys = KeySchema { partition: "connection_id".to_owned(), sort: None };
    assert!(table.delete_if_unchanged(&keys, &row).await?);
    assert_eq!(
        service.asked().body,
        json!({
            "TableName": "connections",
            "Key": id,
            "ConditionExpression": "#n0 = :v0 AND #n1 = :v1 AND #n2 = :v2",
            "ExpressionAttributeNames": {"#n0": "connection_id", "#n1": "sk", "#n2": "tags"},
            "ExpressionAttributeValues":
                {":v0": {"S": "a="}, ":v1": {"S": "hoge"}, ":v2": {"SS": ["x"]}},
        })
    );
    assert_eq!(table.get(&key()).await?, None, "a row that is gone");
    Ok(())
}

#[tokio::test]
async fn failures_name_the_right_that_is_lacking() -> Result<()> {
    let denied = || {
        let code = "com.amazon.coral.service#AccessDeniedException";
        (400, json!({"__type": code, "message": "because"}))
    };
    let changed = json!({
        "__type": "com.amazonaws.dynamodb.v20120810#ConditionalCheckFailedException",
        "message": "because"
    });
    let answers = vec![denied(), denied(), denied(), denied(), (400, changed)];
    let (_service, table) = Service::start(source(None), answers).await?;
    let keys = KeySchema { partition: "connection_id".to_owned(), sort: None };
    let told = |error: ConnectionsError| (error.action, error.kind);
    let segment = Segment { number: 0, total: 8 };
    let failures = [
        told(table.query(&text("hoge"), &attributes(), None).await.unwrap_err()),
        told(table.scan(segment, &attributes(), None).await.unwrap_err()),
        told(table.get(&key()).await.unwrap_err()),
        told(table.delete_if_unchanged(&keys, &key()).await.unwrap_err()),
    ];
    let denied = ["Query", "Scan", "GetItem", "DeleteItem"];
    for ((action, kind), right) in failures.into_iter().zip(denied) {
        assert_eq!(action, format!("dynamodb:{right}"));
        assert_eq!(kind, ConnectionsErrorKind::AccessDenied);
    }
    assert!(!table.delete_if_unchanged(&keys, &key()).await?, "written again");
    Ok(())
}
