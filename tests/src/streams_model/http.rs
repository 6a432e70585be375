//! The simulated table behind HTTP, as DynamoDB Streams speaks it (AWS JSON 1.0), so that every
//! client can read it. Its clock is the model's, in the `Date` header too: it stands still unless the
//! test advances it, or lets it run.
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

use super::{Clock, DescribedShard, From, Model, ModelRecord, Refusal};

/// Everything of a stream's ARN that comes before the table's name.
const TABLES: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/";

/// A server, gone when this is dropped.
#[derive(Debug)]
pub struct HttpStreams {
    /// Where it listens, such as `http://127.0.0.1:4566`.
    pub endpoint: String,
    task: JoinHandle<()>,
}

#[derive(Clone)]
struct Service {
    model: Arc<Mutex<Model>>,
    clock: Option<Clock>,
}

impl HttpStreams {
    /// Serves a model. With a clock, its time runs; without, whoever holds the model advances it.
    pub async fn start(model: Arc<Mutex<Model>>, clock: Option<Clock>) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let routes = Router::new().fallback(answer).with_state(Service { model, clock });
        let task =
            tokio::spawn(async move { axum::serve(listener, routes).await.expect("serves") });
        Ok(Self { endpoint, task })
    }
}

impl Drop for HttpStreams {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Model {
    /// The table's ARN.
    pub fn table_arn(&self) -> String {
        format!("{TABLES}{}", self.settings.table)
    }

    /// The ARN of the stream of this label.
    pub fn stream_arn(&self, label: &str) -> String {
        format!("{}/stream/{label}", self.table_arn())
    }
}

async fn answer(State(service): State<Service>, headers: HeaderMap, body: Bytes) -> Response {
    let mut model = service.model.lock().unwrap();
    if let Some(clock) = service.clock {
        model.advance_to(clock.now());
    }
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let (status, body) = respond(&mut model, target.unwrap_or_default(), &body);
    let content = (header::CONTENT_TYPE, "application/x-amz-json-1.0".to_owned());
    (status, [content, (header::DATE, date(model.now()))], body).into_response()
}

/// What a request to this target is answered with.
pub fn respond(model: &mut Model, target: &str, body: &[u8]) -> (StatusCode, String) {
    let request = serde_json::from_slice(body).map_err(|_| Refusal::Validation);
    let (status, body) = match request.and_then(|request| call(model, target, &request)) {
        Ok(body) => (StatusCode::OK, body),
        Err(refusal) => refused(refusal),
    };
    (status, body.to_string())
}

fn refused(refusal: Refusal) -> (StatusCode, Value) {
    let status = match refusal {
        Refusal::InternalServerError => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::BAD_REQUEST,
    };
    let kind = format!("com.amazonaws.dynamodb.v20120810#{}", refusal.code());
    (status, json!({"__type": kind, "message": "as the simulation has it"}))
}

fn call(model: &mut Model, target: &str, request: &Value) -> Result<Value, Refusal> {
    match target {
        "DynamoDBStreams_20120810.ListStreams" => list(model, request),
        "DynamoDBStreams_20120810.DescribeStream" => describe(model, request),
        "DynamoDBStreams_20120810.GetShardIterator" => shard_iterator(model, request),
        "DynamoDBStreams_20120810.GetRecords" => get_records(model, request),
        _ => Err(Refusal::Validation),
    }
}

fn list(model: &mut Model, request: &Value) -> Result<Value, Refusal> {
    let labels = model.list_streams()?;
    let table = &model.settings.table;
    let asked = request["TableName"].as_str().is_none_or(|asked| asked == table);
    let stream = |label: &String| json!({"StreamArn": model.stream_arn(label), "TableName": table, "StreamLabel": label});
    Ok(json!({"Streams": labels.iter().filter(|_| asked).map(stream).collect::<Vec<_>>()}))
}

fn describe(model: &mut Model, request: &Value) -> Result<Value, Refusal> {
    let label = label(model, request)?;
    let filter = &request["ShardFilter"];
    let children_of = match filter["Type"].as_str() {
        None => None,
        Some("CHILD_SHARDS") => Some(filter["ShardId"].as_str().ok_or(Refusal::Validation)?),
        Some(_) => return Err(Refusal::Validation),
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

fn shard_iterator(model: &mut Model, request: &Value) -> Result<Value, Refusal> {
    let label = label(model, request)?;
    let id = request["ShardId"].as_str().ok_or(Refusal::Validation)?;
    let number = || {
        let number = request["SequenceNumber"].as_str().and_then(|number| number.parse().ok());
        number.ok_or(Refusal::Validation)
    };
    let from = match request["ShardIteratorType"].as_str() {
        Some("TRIM_HORIZON") => From::TrimHorizon,
        Some("LATEST") => From::Latest,
        Some("AT_SEQUENCE_NUMBER") => From::At(number()?),
        Some("AFTER_SEQUENCE_NUMBER") => From::After(number()?),
        Some("AT_TIMESTAMP") => {
            From::Timestamp(request["Timestamp"].as_f64().ok_or(Refusal::Validation)?.ceil() as u64)
        }
        _ => return Err(Refusal::Validation),
    };
    Ok(json!({"ShardIterator": model.shard_iterator(&label, id, from)?}))
}

fn get_records(model: &mut Model, request: &Value) -> Result<Value, Refusal> {
    let iterator = request["ShardIterator"].as_str().ok_or(Refusal::Validation)?;
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

/// The label in the ARN that a request is about.
fn label(model: &Model, request: &Value) -> Result<String, Refusal> {
    let arn = request["StreamArn"].as_str().ok_or(Refusal::Validation)?;
    let label = arn.strip_prefix(&model.stream_arn(""));
    Ok(label.ok_or(Refusal::ResourceNotFound)?.to_owned())
}

fn limit(request: &Value) -> Option<usize> {
    request["Limit"].as_u64().map(|limit| limit as usize)
}

/// A time as the `Date` header has it.
pub fn date(milliseconds: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(milliseconds as i64).expect("within 9,999 years");
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
