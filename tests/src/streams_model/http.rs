//! Serves the model over HTTP in the protocol of DynamoDB Streams (AWS JSON 1.0), so that any
//! client can read it. The `Date` header shows the model's clock, which stands still unless a test
//! advances it or passes a running clock.
//!
//! <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_Operations_Amazon_DynamoDB_Streams.html>

use std::sync::{Arc, Mutex};

use anyhow::Result;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Clock, DescribedShard, IteratorPosition, Model, ModelRecord, ServiceError};

/// The prefix of table ARNs.
const TABLES: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/";

/// A server, which stops when this is dropped.
#[derive(Debug)]
pub struct HttpStreams {
    /// Such as `http://127.0.0.1:4566`.
    pub endpoint: String,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    model: Arc<Mutex<Model>>,
    clock: Option<Clock>,
}

impl HttpStreams {
    /// Serves a model. Without a clock, the owner of the model advances its time.
    pub async fn start(model: Arc<Mutex<Model>>, clock: Option<Clock>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let routes = Router::new().fallback(handle).with_state(Service { model, clock });
        let task = tokio::spawn(async move {
            axum::serve(listener, routes).await.expect("the server must run")
        });
        Ok(Self { endpoint, task })
    }
}

impl Drop for HttpStreams {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Model {
    pub fn table_arn(&self) -> String {
        format!("{TABLES}{}", self.settings.table)
    }

    /// The ARN of the stream with this label.
    pub fn stream_arn(&self, label: &str) -> String {
        format!("{}/stream/{label}", self.table_arn())
    }
}

async fn handle(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    let mut model = service.model.lock().unwrap();
    if let Some(clock) = service.clock {
        model.advance_to(clock.now());
    }
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let (status, body) = respond(&mut model, target.unwrap_or_default(), &body);
    let content_type = (header::CONTENT_TYPE, "application/x-amz-json-1.0".to_owned());
    (status, [content_type, (header::DATE, http_date(model.now()))], body).into_response()
}

/// The response to a request with this target.
pub fn respond(model: &mut Model, target: &str, body: &[u8]) -> (StatusCode, String) {
    let request = serde_json::from_slice(body).map_err(|_| ServiceError::Validation);
    let (status, body) = match request.and_then(|request| dispatch(model, target, &request)) {
        Ok(body) => (StatusCode::OK, body),
        Err(service_error) => error_response(service_error),
    };
    (status, body.to_string())
}

fn error_response(service_error: ServiceError) -> (StatusCode, Value) {
    let status = match service_error {
        ServiceError::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let kind = format!("com.amazonaws.dynamodb.v20120810#{}", service_error.code());
    (status, json!({"__type": kind, "message": "simulated"}))
}

fn dispatch(model: &mut Model, target: &str, request: &Value) -> Result<Value, ServiceError> {
    match target {
        "DynamoDBStreams_20120810.ListStreams" => list(model, request),
        "DynamoDBStreams_20120810.DescribeStream" => describe(model, request),
        "DynamoDBStreams_20120810.GetShardIterator" => shard_iterator(model, request),
        "DynamoDBStreams_20120810.GetRecords" => get_records(model, request),
        _ => Err(ServiceError::Validation),
    }
}

fn list(model: &mut Model, request: &Value) -> Result<Value, ServiceError> {
    let labels = model.list_streams()?;
    let table = &model.settings.table;
    let is_requested = request["TableName"].as_str().is_none_or(|name| name == table);
    let stream = |label: &String| json!({"StreamArn": model.stream_arn(label), "TableName": table, "StreamLabel": label});
    Ok(json!({"Streams": labels.iter().filter(|_| is_requested).map(stream).collect::<Vec<_>>()}))
}

fn describe(model: &mut Model, request: &Value) -> Result<Value, ServiceError> {
    let label = label(model, request)?;
    let filter = &request["ShardFilter"];
    let children_of = match filter["Type"].as_str() {
        None => None,
        Some("CHILD_SHARDS") => Some(filter["ShardId"].as_str().ok_or(ServiceError::Validation)?),
        Some(_) => return Err(ServiceError::Validation),
    };
    let after = request["ExclusiveStartShardId"].as_str();
    let described = model.describe(&label, children_of, after, limit(request))?;
    Ok(json!({"StreamDescription": {
        "StreamArn": model.stream_arn(&label),
        "StreamLabel": label,
        "StreamStatus": described.status.as_str(),
        "StreamViewType": model.settings.view.as_str(),
        "TableName": model.settings.table,
        "KeySchema": [
            {"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"},
        ],
        "Shards": described.shards.iter().map(shard).collect::<Vec<_>>(),
        "LastEvaluatedShardId": described.last,
    }}))
}

fn shard(shard: &DescribedShard) -> Value {
    json!({
        "ShardId": shard.id,
        "ParentShardId": shard.parent,
        "SequenceNumberRange": {
            "StartingSequenceNumber": shard.starting.to_string(),
            "EndingSequenceNumber": shard.ending.map(|number| number.to_string()),
        },
    })
}

fn shard_iterator(model: &mut Model, request: &Value) -> Result<Value, ServiceError> {
    let label = label(model, request)?;
    let id = request["ShardId"].as_str().ok_or(ServiceError::Validation)?;
    let number = || {
        let number = request["SequenceNumber"].as_str().and_then(|number| number.parse().ok());
        number.ok_or(ServiceError::Validation)
    };
    let from = match request["ShardIteratorType"].as_str() {
        Some("TRIM_HORIZON") => IteratorPosition::TrimHorizon,
        Some("LATEST") => IteratorPosition::Latest,
        Some("AT_SEQUENCE_NUMBER") => IteratorPosition::At(number()?),
        Some("AFTER_SEQUENCE_NUMBER") => IteratorPosition::After(number()?),
        Some("AT_TIMESTAMP") => IteratorPosition::Timestamp(
            request["Timestamp"].as_f64().ok_or(ServiceError::Validation)?.ceil() as u64,
        ),
        _ => return Err(ServiceError::Validation),
    };
    Ok(json!({"ShardIterator": model.shard_iterator(&label, id, from)?}))
}

fn get_records(model: &mut Model, request: &Value) -> Result<Value, ServiceError> {
    let iterator = request["ShardIterator"].as_str().ok_or(ServiceError::Validation)?;
    let page = model.get_records(iterator, limit(request))?;
    let records: Vec<_> = page.records.into_iter().map(|index| record(model, index)).collect();
    Ok(json!({"Records": records, "NextShardIterator": page.next}))
}

fn record(model: &Model, index: usize) -> Value {
    let ModelRecord { key, number, created, .. } = &model.records()[index];
    let mut record = json!({
        "ApproximateCreationDateTime": created / 1_000,
        "Keys": {"PK": {"S": key.pk}, "SK": {"S": key.sk}},
        "SequenceNumber": number.to_string(),
        "SizeBytes": model.size(index),
        "StreamViewType": model.settings.view.as_str(),
    });
    for (name, value) in ["OldImage", "NewImage"].into_iter().zip(model.images(index)) {
        let Some(value) = value else { continue };
        record[name] = record["Keys"].clone();
        record[name]["TargetAttribute"] = json!({"N": value.to_string()});
        if model.settings.filler_bytes > 0 {
            record[name]["Filler"] = json!({"S": "x".repeat(model.settings.filler_bytes)});
        }
    }
    json!({
        "eventID": model.event_id(index),
        "eventName": model.records()[index].event(),
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "eu-west-1",
        "dynamodb": record,
    })
}

/// The label in the stream ARN of a request.
fn label(model: &Model, request: &Value) -> Result<String, ServiceError> {
    let arn = request["StreamArn"].as_str().ok_or(ServiceError::Validation)?;
    let label = arn.strip_prefix(&model.stream_arn(""));
    Ok(label.ok_or(ServiceError::ResourceNotFound)?.to_owned())
}

fn limit(request: &Value) -> Option<usize> {
    request["Limit"].as_u64().map(|limit| limit as usize)
}

/// A time in the format of the `Date` header.
pub fn http_date(milliseconds: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(milliseconds as i64).expect("time is in range");
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
