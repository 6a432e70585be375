//! The DynamoDB Streams client: its requests, and how it reads responses.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use stream_notifier::aws::DynamoDbStreams;
use stream_notifier::model::{EventName, ShardId, StreamLabel, UnixSeconds, ViewType};
use stream_notifier::streams::{
    IteratorStart, ShardFilter, ShardIterator, ShardReader, StreamErrorKind, StreamStatus, Streams,
};

use super::scripted_service::{Request, Response, SERVICE_TIME, ScriptedService, error};

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/t";
const LABEL: &str = "2024-12-03T08:06:15.779";
const SHARD: &str = "shardId-00000001573689847184-864758bb";

/// A client and the service behind it.
async fn start(responses: Vec<Response>) -> Result<(Arc<ScriptedService>, DynamoDbStreams)> {
    let (service, aws) = ScriptedService::start(responses).await?;
    Ok((service, DynamoDbStreams::new(&aws, "eu-west-1", TABLE)))
}

/// The operation of each request until now, with the value of one parameter.
fn requested(service: &ScriptedService, parameter: &str) -> Vec<(String, Value)> {
    let requests = service.requests();
    let pair =
        |request: &Request| (request.operation().to_owned(), request.body[parameter].clone());
    requests.iter().map(pair).collect()
}

fn label() -> StreamLabel {
    StreamLabel::new(LABEL)
}

fn shard() -> ShardId {
    ShardId::new(&label(), SHARD)
}

fn description(shards: Value, last: Option<&str>) -> Response {
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

fn page(numbers: &[u32], next: Option<&str>) -> Response {
    let records: Vec<_> = numbers.iter().map(|n| record(*n)).collect();
    (200, json!({"Records": records, "NextShardIterator": next}))
}

fn iterator(name: &str) -> Response {
    (200, json!({"ShardIterator": name}))
}

#[tokio::test]
async fn describes_a_stream_page_by_page_with_the_service_time() -> Result<()> {
    let open_with_an_end = json!([{
        "ShardId": SHARD, "ParentShardId": "shardId-00000001573689847184-00000000",
        "SequenceNumberRange": {
            "StartingSequenceNumber": "100000000000000000001",
            "EndingSequenceNumber": "100000000000000000009",
        },
    }]);
    let (service, streams) =
        start(vec![description(open_with_an_end, Some(SHARD)), description(json!([]), None)])
            .await?;
    let first = streams.describe(&label(), ShardFilter::All, None).await?;
    assert_eq!(first.service_time, SERVICE_TIME);
    assert_eq!(first.view_type, ViewType::NewAndOldImages);
    assert_eq!((first.keys.partition.as_str(), first.keys.sort.as_deref()), ("PK", Some("SK")));
    assert_eq!(first.shards[0].id, shard());
    assert_eq!(first.status, StreamStatus::Enabled);
    let next = first.next_page.context("a next page")?;
    assert!(streams.describe(&label(), ShardFilter::All, Some(&next)).await?.next_page.is_none());
    let operation = "DescribeStream".to_owned();
    let requests = requested(&service, "ExclusiveStartShardId");
    assert_eq!(requests, [(operation.clone(), Value::Null), (operation, json!(SHARD))]);
    Ok(())
}

/// Some services show an `EndingSequenceNumber` on an open shard. The reader ignores it.
#[tokio::test]
async fn reads_a_shard_until_a_page_has_no_next_iterator() -> Result<()> {
    let (service, streams) = start(vec![
        iterator("one"),
        page(&[1], Some("two")),
        page(&[], Some("three")),
        page(&[2, 3], None),
    ])
    .await?;
    let shard = shard();
    let mut reader = ShardReader::new(Arc::new(streams), shard, IteratorStart::TrimHorizon);
    let mut numbers = Vec::new();
    let mut ends = Vec::new();
    for _ in 0..3 {
        let read = reader.read_page().await?;
        numbers.extend(read.records.iter().map(|record| record.event_id.clone()));
        ends.push(read.is_last);
    }
    assert_eq!(numbers, ["event-1", "event-2", "event-3"]);
    assert_eq!(ends, [false, false, true]);
    let iterators = requested(&service, "ShardIterator").into_iter().skip(1);
    let iterators: Vec<_> = iterators.map(|(_, iterator)| iterator).collect();
    assert_eq!(iterators, [json!("one"), json!("two"), json!("three")]);
    Ok(())
}

#[tokio::test]
async fn requests_the_trim_horizon_if_the_service_rejects_timestamps() -> Result<()> {
    let at = IteratorStart::At(UnixSeconds(1_790_000_000));
    let shard = shard();
    let (service, streams) = start(vec![
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
        requested(&service, "ShardIteratorType").into_iter().map(|(_, kind)| kind).collect();
    assert_eq!(kinds, ["AT_TIMESTAMP", "AT_TIMESTAMP", "TRIM_HORIZON", "TRIM_HORIZON"]);
    assert_eq!(requested(&service, "Timestamp")[0].1, json!(1_790_000_000));
    Ok(())
}

#[tokio::test]
async fn keeps_every_value_of_a_record() -> Result<()> {
    let (_, streams) = start(vec![page(&[7], None)]).await?;
    let iterator = ShardIterator("one".to_owned());
    let record = streams.get_records(&iterator).await?.records.remove(0);
    assert_eq!(record.event, EventName::Modify);
    assert_eq!(record.sequence_number.as_str(), "100000000000000000007");
    assert_eq!(format!("{:?}", record.old.get("N").unwrap()), r#"N("1E+2")"#);
    assert_eq!(format!("{:?}", record.new.get("SS").unwrap()), r#"Ss({"a", "b"})"#);
    assert_eq!(record.user_identity.context("TTL")?.principal_id, "dynamodb.amazonaws.com");
    Ok(())
}

/// A malformed record must not stop its shard.
#[tokio::test]
async fn counts_and_skips_a_malformed_record() -> Result<()> {
    let mut response = page(&[1, 2, 3], Some("next"));
    response.1["Records"][1]["eventName"] = json!("SOMETHING_NEW");
    let (_, streams) = start(vec![response]).await?;
    let iterator = ShardIterator("one".to_owned());
    let page = streams.get_records(&iterator).await?;
    let events: Vec<_> = page.records.iter().map(|record| record.event_id.as_str()).collect();
    assert_eq!((events, page.malformed), (vec!["event-1", "event-3"], 1));
    Ok(())
}

#[tokio::test]
async fn lists_children_by_their_parent_and_streams_by_their_table() -> Result<()> {
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
    let (service, client) = start(vec![
        description(json!([]), None),
        streams(&["2024-01-01T00:00:00.000"], Some("more")),
        streams(&[LABEL, "foreign"], None),
    ])
    .await?;
    client.describe(&label(), ShardFilter::ChildrenOf(&shard()), None).await?;
    let filter = json!({"Type": "CHILD_SHARDS", "ShardId": SHARD});
    assert_eq!(requested(&service, "ShardFilter"), [("DescribeStream".to_owned(), filter)]);
    let labels = client.list().await?;
    assert_eq!(labels, [StreamLabel::new("2024-01-01T00:00:00.000"), label()]);
    let operation = "ListStreams".to_owned();
    let requests = &requested(&service, "TableName")[1..];
    assert_eq!(requests, [(operation.clone(), json!("t")), (operation, json!("t"))]);
    assert_eq!(requested(&service, "ExclusiveStartStreamArn")[2].1, json!("more"));
    Ok(())
}

#[tokio::test]
async fn classifies_every_error_code() -> Result<()> {
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
        // The second response would be used if the SDK retried.
        let (service, streams) = start(vec![error(code), page(&[], None)]).await?;
        let iterator = ShardIterator("one".to_owned());
        let failure = streams.get_records(&iterator).await.expect_err(code);
        assert_eq!(failure.kind, expected, "{code}");
        assert_eq!(failure.action, "dynamodb:GetRecords");
        assert_eq!(requested(&service, "ShardIterator").len(), 1, "{code}: no retries");

        // The operations that the SDK's client sends.
        let (_service, streams) = start(vec![error(code), description(json!([]), None)]).await?;
        let failure = streams.describe(&label(), ShardFilter::All, None).await.expect_err(code);
        assert_eq!(failure.service_time, Some(SERVICE_TIME), "{code}");
        assert_eq!((failure.kind, failure.action), (expected, "dynamodb:DescribeStream"), "{code}");
    }
    Ok(())
}
