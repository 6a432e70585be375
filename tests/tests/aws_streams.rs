//! The real streams client on scripted HTTP answers: what it asks, and that it believes a page
//! without a next iterator and nothing else.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};
use stream_notifier::aws::{AwsConfig, DynamoDbStreams};
use stream_notifier::model::{EventName, ShardId, StreamLabel, UnixSeconds, ViewType};
use stream_notifier::streams::{
    IteratorStart, ShardFilter, ShardReader, StreamErrorKind, StreamStatus, Streams,
};
use tokio::net::TcpListener;

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/t";
const LABEL: &str = "2024-12-03T08:06:15.779";
const SHARD: &str = "shardId-00000001573689847184-864758bb";

/// A service that answers as it is told, in turn, and notes what it was asked.
#[derive(Default)]
struct Service {
    answers: Mutex<VecDeque<(u16, Value)>>,
    asked: Mutex<Vec<(String, Value)>>,
}

impl Service {
    async fn start(answers: Vec<(u16, Value)>) -> Result<(Arc<Self>, DynamoDbStreams)> {
        let service = Arc::new(Self { answers: Mutex::new(answers.into()), ..Self::default() });
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let routes = Router::new().fallback(answer).with_state(service.clone());
        tokio::spawn(async move { axum::serve(listener, routes).await });
        let aws = AwsConfig::local(&endpoint).await;
        Ok((service, DynamoDbStreams::new(&aws, "eu-west-1", TABLE)))
    }

    /// Each call's name and one of its parameters.
    fn asked(&self, parameter: &str) -> Vec<(String, Value)> {
        let asked = self.asked.lock().unwrap();
        asked.iter().map(|(call, body)| (call.clone(), body[parameter].clone())).collect()
    }
}

async fn answer(
    State(service): State<Arc<Service>>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> impl IntoResponse + use<> {
    let target = headers["x-amz-target"].to_str().unwrap();
    let call = target.rsplit('.').next().unwrap().to_owned();
    service.asked.lock().unwrap().push((call, serde_json::from_slice(&body).unwrap()));
    let (status, answer) = service.answers.lock().unwrap().pop_front().unwrap();
    let date = [("date", "Mon, 21 Sep 2026 13:33:20 GMT")];
    (StatusCode::from_u16(status).unwrap(), date, axum::Json(answer))
}

fn label() -> StreamLabel {
    StreamLabel::new(LABEL)
}

fn shard() -> ShardId {
    ShardId::new(&label(), SHARD)
}

fn error(code: &str) -> (u16, Value) {
    let code = format!("com.amazonaws.dynamodb.v20120810#{code}");
    (400, json!({"__type": code, "message": "because"}))
}

fn described(shards: Value, last: Option<&str>) -> (u16, Value) {
    let description = json!({
        "StreamArn": label().arn(TABLE), "StreamLabel": LABEL, "StreamStatus": "ENABLED",
        "StreamViewType": "NEW_AND_OLD_IMAGES", "TableName": "t",
        "KeySchema": [
            {"AttributeName": "PK", "KeyType": "HASH"}, {"AttributeName": "SK", "KeyType": "RANGE"},
        ],
        "Shards": shards, "LastEvaluatedShardId": last,
    });
    (200, json!({"StreamDescription": description}))
}

fn record(n: u32) -> Value {
    json!({
        "eventID": format!("event-{n}"), "eventName": "MODIFY", "awsRegion": "eu-west-1",
        "dynamodb": {
            "ApproximateCreationDateTime": 1_790_000_000, "Keys": {"PK": {"S": "a"}},
            "OldImage": {"PK": {"S": "a"}, "N": {"N": "1E+2"}},
            "NewImage": {"PK": {"S": "a"}, "B": {"B": "AAE="}, "SS": {"SS": ["b", "a"]}},
            "SequenceNumber": format!("1000000000000000000{n:02}"), "SizeBytes": 10,
        },
        "userIdentity": {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"},
    })
}

fn page(numbers: &[u32], next: Option<&str>) -> (u16, Value) {
    let records: Vec<_> = numbers.iter().map(|n| record(*n)).collect();
    (200, json!({"Records": records, "NextShardIterator": next}))
}

fn iterator(name: &str) -> (u16, Value) {
    (200, json!({"ShardIterator": name}))
}

#[tokio::test]
async fn a_description_is_read_page_by_page_with_the_services_clock() -> Result<()> {
    let open_with_an_end = json!([{
        "ShardId": SHARD, "ParentShardId": "shardId-00000001573689847184-00000000",
        "SequenceNumberRange": {
            "StartingSequenceNumber": "100000000000000000001",
            "EndingSequenceNumber": "100000000000000000009",
        },
    }]);
    let (service, streams) =
        Service::start(vec![described(open_with_an_end, Some(SHARD)), described(json!([]), None)])
            .await?;
    let first = streams.describe(&label(), ShardFilter::All, None).await?;
    assert_eq!(first.service_time, UnixSeconds(1_789_997_600));
    assert_eq!(first.view_type, ViewType::NewAndOldImages);
    assert_eq!((first.keys.partition.as_str(), first.keys.sort.as_deref()), ("PK", Some("SK")));
    assert_eq!(first.shards[0].id, shard());
    assert_eq!(first.status, StreamStatus::Enabled);
    let next = first.next_page.context("there is more")?;
    assert!(streams.describe(&label(), ShardFilter::All, Some(&next)).await?.next_page.is_none());
    let call = "DescribeStream".to_owned();
    let asked = service.asked("ExclusiveStartShardId");
    assert_eq!(asked, [(call.clone(), Value::Null), (call, json!(SHARD))]);
    Ok(())
}

/// Some services show an `EndingSequenceNumber` on a shard that still grows: the reader never sees
/// it, and goes on until a page has no next iterator.
#[tokio::test]
async fn a_shard_is_read_until_a_page_has_no_next_iterator() -> Result<()> {
    let (service, streams) = Service::start(vec![
        iterator("one"),
        page(&[1], Some("two")),
        page(&[], Some("three")),
        page(&[2, 3], None),
    ])
    .await?;
    let shard = shard();
    let mut reader = ShardReader::new(Arc::new(streams), shard, IteratorStart::Start);
    let mut numbers = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let read = reader.read_page().await?;
        numbers.extend(read.records.iter().map(|change| change.event_id.clone()));
        ends.push(read.is_last);
    }
    assert_eq!(numbers, ["event-1", "event-2", "event-3"]);
    assert_eq!(ends, [false, false, true]);
    let asked: Vec<_> =
        service.asked("ShardIterator").into_iter().skip(1).map(|(_, i)| i).collect();
    assert_eq!(asked, [json!("one"), json!("two"), json!("three")]);
    Ok(())
}

#[tokio::test]
async fn a_moment_is_asked_for_where_the_service_knows_it_and_the_start_elsewhere() -> Result<()> {
    let at = IteratorStart::At(UnixSeconds(1_790_000_000));
    let shard = shard();
    let (service, streams) = Service::start(vec![
        iterator("at"),
        error("ValidationException"),
        iterator("start"),
        iterator("start"),
    ])
    .await?;
    for expected in ["at", "start", "start"] {
        assert_eq!(streams.get_iterator(&shard, &at).await?.0, expected);
    }
    let kinds: Vec<_> =
        service.asked("ShardIteratorType").into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["AT_TIMESTAMP", "AT_TIMESTAMP", "TRIM_HORIZON", "TRIM_HORIZON"]);
    assert_eq!(service.asked("Timestamp")[0].1, json!(1_790_000_000));
    Ok(())
}

#[tokio::test]
async fn a_record_keeps_what_dynamodb_wrote() -> Result<()> {
    let (_, streams) = Service::start(vec![page(&[7], None)]).await?;
    let iterator = stream_notifier::streams::ShardIterator("one".to_owned());
    let change = streams.get_records(&iterator).await?.records.remove(0);
    assert_eq!(change.event, EventName::Modify);
    assert_eq!(change.sequence_number.as_str(), "100000000000000000007");
    assert_eq!(format!("{:?}", change.old.get("N").unwrap()), r#"N("1E+2")"#);
    assert_eq!(format!("{:?}", change.new.get("SS").unwrap()), r#"Ss({"a", "b"})"#);
    assert_eq!(change.user_identity.context("TTL")?.principal_id, "dynamodb.amazonaws.com");
    Ok(())
}

/// One that cannot be read must not hold up its shard.
#[tokio::test]
async fn a_record_that_lacks_what_every_record_has_is_counted_and_left_out() -> Result<()> {
    let mut answer = page(&[1, 2, 3], Some("next"));
    answer.1["Records"][1]["eventName"] = json!("SOMETHING_NEW");
    let (_, streams) = Service::start(vec![answer]).await?;
    let iterator = stream_notifier::streams::ShardIterator("one".to_owned());
    let page = streams.get_records(&iterator).await?;
    let events: Vec<_> = page.records.iter().map(|change| change.event_id.as_str()).collect();
    assert_eq!((events, page.malformed), (vec!["event-1", "event-3"], 1));
    Ok(())
}

#[tokio::test]
async fn children_are_asked_for_by_their_parent_and_streams_by_their_table() -> Result<()> {
    let streams = |labels: &[&str], last: Option<&str>| {
        let arn = |label: &str| match label {
            "foreign" => {
                "arn:aws:dynamodb:eu-west-1:999999999999:table/t/stream/foreign".to_owned()
            }
            label => StreamLabel::new(label).arn(TABLE),
        };
        let stream =
            |label: &&str| json!({"StreamLabel": label, "TableName": "t", "StreamArn": arn(label)});
        let all: Vec<_> = labels.iter().map(stream).collect();
        (200, json!({"Streams": all, "LastEvaluatedStreamArn": last}))
    };
    let (service, client) = Service::start(vec![
        described(json!([]), None),
        streams(&["2024-01-01T00:00:00.000"], Some("more")),
        streams(&[LABEL, "foreign"], None),
    ])
    .await?;
    client.describe(&label(), ShardFilter::ChildrenOf(&shard()), None).await?;
    let filter = json!({"Type": "CHILD_SHARDS", "ShardId": SHARD});
    assert_eq!(service.asked("ShardFilter"), [("DescribeStream".to_owned(), filter)]);
    let found = client.list().await?;
    assert_eq!(found, [StreamLabel::new("2024-01-01T00:00:00.000"), label()]);
    let call = "ListStreams".to_owned();
    let asked = &service.asked("TableName")[1..];
    assert_eq!(asked, [(call.clone(), json!("t")), (call, json!("t"))]);
    assert_eq!(service.asked("ExclusiveStartStreamArn")[2].1, json!("more"));
    Ok(())
}

#[tokio::test]
async fn every_error_code_has_its_meaning() -> Result<()> {
    for (code, expected) in [
        ("ExpiredIteratorException", StreamErrorKind::ExpiredIterator),
        ("TrimmedDataAccessException", StreamErrorKind::Trimmed),
        ("ResourceNotFoundException", StreamErrorKind::NotFound),
        ("AccessDeniedException", StreamErrorKind::AccessDenied),
        ("UnrecognizedClientException", StreamErrorKind::AccessDenied),
        ("LimitExceededException", StreamErrorKind::Throttled),
        ("ProvisionedThroughputExceededException", StreamErrorKind::Throttled),
        ("ValidationException", StreamErrorKind::Invalid),
        ("InternalServerError", StreamErrorKind::Unavailable),
        ("SomethingNew", StreamErrorKind::Unavailable),
    ] {
        // A second answer would be taken if the SDK tried again by itself.
        let (service, streams) = Service::start(vec![error(code), page(&[], None)]).await?;
        let iterator = stream_notifier::streams::ShardIterator("one".to_owned());
        let failed = streams.get_records(&iterator).await.expect_err(code);
        assert_eq!(failed.kind, expected, "{code}");
        assert_eq!(failed.action, "dynamodb:GetRecords");
        assert_eq!(service.asked("ShardIterator").len(), 1, "{code}: one call, one try");

        // The calls that the SDK's client makes.
        let (_service, streams) =
            Service::start(vec![error(code), described(json!([]), None)]).await?;
        let failed = streams.describe(&label(), ShardFilter::All, None).await.expect_err(code);
        assert_eq!(failed.service_time, Some(UnixSeconds(1_789_997_600)), "{code}");
        assert_eq!((failed.kind, failed.action), (expected, "dynamodb:DescribeStream"), "{code}");
    }
    Ok(())
}
