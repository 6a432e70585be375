//! Operations of DynamoDB Streams, corrected where the engine differs from AWS.
//!
//! - A write that changes nothing creates no record.
//! - An open shard has no last sequence number.
//! - A shard id has a length that the SDKs accept, with any table name.
//! - A stream is found only by its own ARN.

use dynoxide::actions::describe_stream::{DescribeStreamRequest, DescribeStreamResponse};
use dynoxide::actions::get_records::{GetRecordsResponse, StreamRecord};
use dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use dynoxide::{AttributeValue, Database, DynoxideError, Item, TableMetadata};
use serde_json::Value;

use super::json::{DynamoResult, internal_error, parse, to_json};
use crate::local::plan::AwsLocation;

/// Executes DescribeStream. Adds the key schema, which the engine omits.
pub fn describe_stream(db: &Database, location: &AwsLocation, body: &str) -> DynamoResult<String> {
    let options: Value = parse(body)?;
    let request: DescribeStreamRequest = parse(body)?;
    let table = find_table(db, location, &request.stream_arn)?;
    let shard = shard_id(&request.stream_arn, table.created_at);
    // A stream has one shard, without a child and without a next shard.
    let excludes_shard = !options["ShardFilter"].is_null()
        || request.exclusive_start_shard_id.as_ref().is_some_and(|start| *start >= shard);
    let mut response: DescribeStreamResponse = db.describe_stream(request)?;
    let description = &mut response.stream_description;
    if excludes_shard {
        description.shards.clear();
    }
    for listed in &mut description.shards {
        listed.shard_id.clone_from(&shard);
        let range = &mut listed.sequence_number_range;
        range.ending_sequence_number = None;
        range.starting_sequence_number.get_or_insert_with(|| FIRST_SEQUENCE_NUMBER.to_owned());
    }
    let mut response = serde_json::to_value(&response).map_err(internal_error)?;
    response["StreamDescription"]["KeySchema"] = parse(&table.key_schema)?;
    to_json(&response)
}

/// First sequence number of an empty shard. AWS always returns one.
const FIRST_SEQUENCE_NUMBER: &str = "100000000000000000001";

/// Executes GetShardIterator for the shard of DescribeStream.
///
/// It rejects `AT_TIMESTAMP` with a ValidationException, as a service without this iterator type does.
pub fn get_shard_iterator(
    db: &Database,
    location: &AwsLocation,
    body: &str,
) -> DynamoResult<String> {
    let mut request: GetShardIteratorRequest = parse(body)?;
    let table = find_table(db, location, &request.stream_arn)?;
    if request.shard_id != shard_id(&request.stream_arn, table.created_at) {
        return Err(DynoxideError::ResourceNotFoundException(format!(
            "Requested resource not found: Shard: {} in Stream: {} not found",
            request.shard_id, request.stream_arn
        )));
    }
    request.shard_id = dynoxide::streams::shard_id(&table.table_name);
    to_json(&db.get_shard_iterator(request)?)
}

/// Executes GetRecords, and omits the records of writes that changed nothing.
///
/// The next iterator is the engine's and points behind the omitted records.
pub fn get_records(db: &Database, location: &AwsLocation, body: &str) -> DynamoResult<String> {
    let mut response: GetRecordsResponse = db.get_records(parse(body)?)?;
    response.records.retain(|record| !is_unchanged(&record.dynamodb));
    for record in &mut response.records {
        record.aws_region.clone_from(&location.region);
    }
    to_json(&response)
}

/// Finds the table whose current stream has this ARN.
fn find_table(db: &Database, location: &AwsLocation, arn: &str) -> DynamoResult<TableMetadata> {
    let missing = || {
        DynoxideError::ResourceNotFoundException(format!(
            "Requested resource not found: Stream: {arn} not found"
        ))
    };
    let name = arn.split('/').nth(1).ok_or_else(missing)?;
    let table = db.get_table_metadata(name)?.filter(|table| table.stream_enabled);
    let table = table.ok_or_else(missing)?;
    let label = table.stream_label.as_deref().ok_or_else(missing)?;
    if location.stream_arn(name, label) == arn { Ok(table) } else { Err(missing()) }
}

/// Creates a shard id in the format of AWS: `shardId-`, 20 digits of milliseconds and 8 hexadecimal
/// digits.
///
/// The engine's ids contain the table name, which makes them too short or too long for the SDKs.
fn shard_id(stream_arn: &str, created_at: i64) -> String {
    // FNV-1a. Any stable hash works.
    let hash = stream_arn
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("shardId-{:020}-{hash:08x}", created_at.max(0).saturating_mul(1000))
}

fn is_unchanged(record: &StreamRecord) -> bool {
    match (&record.old_image, &record.new_image) {
        (Some(old), Some(new)) => are_items_equal(old, new),
        _ => false,
    }
}

fn are_items_equal(old: &Item, new: &Item) -> bool {
    old.len() == new.len()
        && old
            .iter()
            .all(|(name, value)| new.get(name).is_some_and(|other| are_values_equal(value, other)))
}

/// Compares two values. Sets are equal regardless of order.
fn are_values_equal(old: &AttributeValue, new: &AttributeValue) -> bool {
    use AttributeValue::{BS, L, M, NS, SS};
    fn are_sets_equal<T: PartialEq>(old: &[T], new: &[T]) -> bool {
        old.len() == new.len() && old.iter().all(|member| new.contains(member))
    }
    match (old, new) {
        (SS(old), SS(new)) | (NS(old), NS(new)) => are_sets_equal(old, new),
        (BS(old), BS(new)) => are_sets_equal(old, new),
        (L(old), L(new)) => {
            old.len() == new.len()
                && old.iter().zip(new).all(|(old, new)| are_values_equal(old, new))
        }
        (M(old), M(new)) => are_items_equal(old, new),
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::local::dynamodb::emulator::Emulator;

    const TABLE: &str = "tiny";

    fn location() -> AwsLocation {
        AwsLocation {
            partition: "aws".into(),
            region: "eu-west-2".into(),
            account: "123456789012".into(),
        }
    }

    fn request(emulator: &Emulator, operation: &str, body: Value) -> Value {
        let response = emulator.execute(operation, &body.to_string()).unwrap();
        serde_json::from_str(&response.unwrap_or_else(|error| error.to_json())).unwrap()
    }

    fn table() -> (Emulator, String) {
        let emulator = Emulator::open(None, location()).unwrap();
        let created = request(
            &emulator,
            "CreateTable",
            json!({
                "TableName": TABLE,
                "BillingMode": "PAY_PER_REQUEST",
                "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
                "AttributeDefinitions": [{"AttributeName": "id", "AttributeType": "S"}],
                "StreamSpecification":
                    {"StreamEnabled": true, "StreamViewType": "NEW_AND_OLD_IMAGES"},
            }),
        );
        let arn = created["TableDescription"]["LatestStreamArn"].as_str().unwrap().to_owned();
        (emulator, arn)
    }

    fn put(emulator: &Emulator, set: Value) {
        let item = json!({"id": {"S": "1"}, "set": set});
        request(emulator, "PutItem", json!({"TableName": TABLE, "Item": item}));
    }

    fn shard(emulator: &Emulator, arn: &str) -> Value {
        let response = request(emulator, "DescribeStream", json!({ "StreamArn": arn }));
        response["StreamDescription"]["Shards"][0].clone()
    }

    fn iterator(emulator: &Emulator, arn: &str, kind: &str) -> Value {
        let shard = shard(emulator, arn)["ShardId"].clone();
        let body = json!({
            "StreamArn": arn, "ShardId": shard, "ShardIteratorType": kind, "Timestamp": 1.0e9,
        });
        request(emulator, "GetShardIterator", body)
    }

    #[test]
    fn omits_records_of_writes_that_change_nothing() {
        let (emulator, arn) = table();
        let first = iterator(&emulator, &arn, "TRIM_HORIZON")["ShardIterator"].clone();
        put(&emulator, json!({"SS": ["a", "b"]}));
        put(&emulator, json!({"SS": ["b", "a"]}));
        let page = request(&emulator, "GetRecords", json!({ "ShardIterator": first }));
        assert_eq!(page["Records"].as_array().unwrap().len(), 1);
        assert_eq!(page["Records"][0]["eventName"], "INSERT");
        assert_eq!(page["Records"][0]["awsRegion"], "eu-west-2");
        put(&emulator, json!({"SS": ["b"]}));
        let next = json!({ "ShardIterator": page["NextShardIterator"] });
        let page = request(&emulator, "GetRecords", next);
        assert_eq!(page["Records"].as_array().unwrap().len(), 1);
        let number = page["Records"][0]["dynamodb"]["SequenceNumber"].as_str().unwrap();
        assert!(number.len() >= 21, "{number}");
    }

    #[test]
    fn describes_the_open_shard_as_aws_does() {
        let (emulator, arn) = table();
        for _ in 0..2 {
            let shard = shard(&emulator, &arn);
            let id = shard["ShardId"].as_str().unwrap();
            assert!((28..=65).contains(&id.len()), "{id}");
            let range = &shard["SequenceNumberRange"];
            assert!(range["StartingSequenceNumber"].as_str().unwrap().len() >= 21);
            assert_eq!(range["EndingSequenceNumber"], Value::Null);
            put(&emulator, json!({"SS": ["a"]}));
        }
        let described = request(&emulator, "DescribeStream", json!({ "StreamArn": arn }));
        assert_eq!(
            described["StreamDescription"]["KeySchema"],
            json!([{"AttributeName": "id", "KeyType": "HASH"}])
        );
    }

    #[test]
    fn lists_no_child_and_no_next_shard() {
        let (emulator, arn) = table();
        let id = shard(&emulator, &arn)["ShardId"].clone();
        let filter = json!({"Type": "CHILD_SHARDS", "ShardId": id});
        for body in [
            json!({"StreamArn": arn, "ShardFilter": filter}),
            json!({"StreamArn": arn, "ExclusiveStartShardId": id}),
        ] {
            let response = request(&emulator, "DescribeStream", body);
            assert_eq!(response["StreamDescription"]["Shards"], json!([]));
        }
    }

    #[test]
    fn rejects_at_timestamp_as_unsupported() {
        let (emulator, arn) = table();
        let rejected = iterator(&emulator, &arn, "AT_TIMESTAMP");
        assert!(rejected["__type"].as_str().unwrap().ends_with("#ValidationException"));
    }

    #[test]
    fn finds_a_stream_only_by_its_own_label() {
        let (emulator, arn) = table();
        assert!(arn.starts_with("arn:aws:dynamodb:eu-west-2:123456789012:table/tiny/stream/"));
        let other = location().stream_arn(TABLE, "2024-12-03T08:06:15.779");
        let rejected = request(&emulator, "DescribeStream", json!({ "StreamArn": other }));
        assert!(rejected["__type"].as_str().unwrap().ends_with("#ResourceNotFoundException"));
    }
}
