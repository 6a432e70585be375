//! The streams' operations as AWS answers them, where the engine does otherwise: a write that
//! changes nothing leaves no record, an open shard has no last sequence number, a shard's id has
//! the length that SDKs demand whatever the table's name, and a stream is found by its own ARN
//! only.

use dynoxide::actions::describe_stream::{DescribeStreamRequest, DescribeStreamResponse};
use dynoxide::actions::get_records::{GetRecordsResponse, StreamRecord};
use dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use dynoxide::{AttributeValue, Database, DynoxideError, Item, TableMetadata};
use serde_json::Value;

use super::json::{Answer, internal, read, write};
use crate::local::plan::AwsLocation;

/// DescribeStream, with the key schema that the engine leaves out.
pub fn describe_stream(db: &Database, home: &AwsLocation, body: &str) -> Answer<String> {
    let options: Value = read(body)?;
    let request: DescribeStreamRequest = read(body)?;
    let table = find(db, home, &request.stream_arn)?;
    let shard = shard_id(&request.stream_arn, table.created_at);
    // The only shard: it has no child, and nothing comes after it.
    let past = !options["ShardFilter"].is_null()
        || request.exclusive_start_shard_id.as_ref().is_some_and(|start| *start >= shard);
    let mut answer: DescribeStreamResponse = db.describe_stream(request)?;
    let description = &mut answer.stream_description;
    if past {
        description.shards.clear();
    }
    for listed in &mut description.shards {
        listed.shard_id.clone_from(&shard);
        let range = &mut listed.sequence_number_range;
        range.ending_sequence_number = None;
        range.starting_sequence_number.get_or_insert_with(|| FIRST_SEQUENCE_NUMBER.to_owned());
    }
    let mut answer = serde_json::to_value(&answer).map_err(internal)?;
    answer["StreamDescription"]["KeySchema"] = read(&table.key_schema)?;
    write(&answer)
}

/// What an empty shard begins with; AWS always names one.
const FIRST_SEQUENCE_NUMBER: &str = "100000000000000000001";

/// GetShardIterator of the shard that DescribeStream showed. `AT_TIMESTAMP` is refused with a
/// ValidationException, as by every service that does not know it yet.
pub fn get_shard_iterator(db: &Database, home: &AwsLocation, body: &str) -> Answer<String> {
    let mut request: GetShardIteratorRequest = read(body)?;
    let table = find(db, home, &request.stream_arn)?;
    if request.shard_id != shard_id(&request.stream_arn, table.created_at) {
        return Err(DynoxideError::ResourceNotFoundException(format!(
            "Requested resource not found: Shard: {} in Stream: {} not found",
            request.shard_id, request.stream_arn
        )));
    }
    request.shard_id = dynoxide::streams::shard_id(&table.table_name);
    write(&db.get_shard_iterator(request)?)
}

/// GetRecords, without the records of writes that changed nothing. The next iterator is the
/// engine's, so they are passed, not met again.
pub fn get_records(db: &Database, home: &AwsLocation, body: &str) -> Answer<String> {
    let mut answer: GetRecordsResponse = db.get_records(read(body)?)?;
    answer.records.retain(|record| !changed_nothing(&record.dynamodb));
    for record in &mut answer.records {
        record.aws_region.clone_from(&home.region);
    }
    write(&answer)
}

/// The table whose present stream has this ARN.
fn find(db: &Database, home: &AwsLocation, arn: &str) -> Answer<TableMetadata> {
    let missing = || {
        DynoxideError::ResourceNotFoundException(format!(
            "Requested resource not found: Stream: {arn} not found"
        ))
    };
    let name = arn.split('/').nth(1).ok_or_else(missing)?;
    let table = db.get_table_metadata(name)?.filter(|table| table.stream_enabled);
    let table = table.ok_or_else(missing)?;
    let label = table.stream_label.as_deref().ok_or_else(missing)?;
    if home.stream_arn(name, label) == arn { Ok(table) } else { Err(missing()) }
}

/// `shardId-` + milliseconds in 20 digits + 8 hexadecimal ones, as AWS's ids look. The engine's
/// hold the table's name, which makes them too short or too long for the SDKs.
fn shard_id(stream_arn: &str, created_at: i64) -> String {
    // FNV-1a: any stable digest will do.
    let hash = stream_arn
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    format!("shardId-{:020}-{hash:08x}", created_at.max(0).saturating_mul(1000))
}

fn changed_nothing(record: &StreamRecord) -> bool {
    match (&record.old_image, &record.new_image) {
        (Some(old), Some(new)) => same_items(old, new),
        _ => false,
    }
}

fn same_items(old: &Item, new: &Item) -> bool {
    old.len() == new.len()
        && old.iter().all(|(name, value)| new.get(name).is_some_and(|other| same(value, other)))
}

fn same(old: &AttributeValue, new: &AttributeValue) -> bool {
    use AttributeValue::{BS, L, M, NS, SS};
    fn same_sets<T: PartialEq>(old: &[T], new: &[T]) -> bool {
        old.len() == new.len() && old.iter().all(|member| new.contains(member))
    }
    match (old, new) {
        (SS(old), SS(new)) | (NS(old), NS(new)) => same_sets(old, new),
        (BS(old), BS(new)) => same_sets(old, new),
        (L(old), L(new)) => {
            old.len() == new.len() && old.iter().zip(new).all(|(old, new)| same(old, new))
        }
        (M(old), M(new)) => same_items(old, new),
        (old, new) => old == new,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::local::dynamodb::emulator::Dynamo;

    const TABLE: &str = "tiny";

    fn home() -> AwsLocation {
        AwsLocation {
            partition: "aws".into(),
            region: "eu-west-2".into(),
            account: "123456789012".into(),
        }
    }

    fn ask(dynamo: &Dynamo, operation: &str, body: Value) -> Value {
        let answer = dynamo.run(operation, &body.to_string()).unwrap();
        serde_json::from_str(&answer.unwrap_or_else(|error| error.to_json())).unwrap()
    }

    fn table() -> (Dynamo, String) {
        let dynamo = Dynamo::open(None, home()).unwrap();
        let created = ask(
            &dynamo,
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
        (dynamo, arn)
    }

    fn put(dynamo: &Dynamo, set: Value) {
        let item = json!({"id": {"S": "1"}, "set": set});
        ask(dynamo, "PutItem", json!({"TableName": TABLE, "Item": item}));
    }

    fn shard(dynamo: &Dynamo, arn: &str) -> Value {
        let answer = ask(dynamo, "DescribeStream", json!({ "StreamArn": arn }));
        answer["StreamDescription"]["Shards"][0].clone()
    }

    fn iterator(dynamo: &Dynamo, arn: &str, kind: &str) -> Value {
        let shard = shard(dynamo, arn)["ShardId"].clone();
        let body = json!({
            "StreamArn": arn, "ShardId": shard, "ShardIteratorType": kind, "Timestamp": 1.0e9,
        });
        ask(dynamo, "GetShardIterator", body)
    }

    #[test]
    fn a_write_that_changes_nothing_leaves_no_record() {
        let (dynamo, arn) = table();
        let first = iterator(&dynamo, &arn, "TRIM_HORIZON")["ShardIterator"].clone();
        put(&dynamo, json!({"SS": ["a", "b"]}));
        put(&dynamo, json!({"SS": ["b", "a"]}));
        let page = ask(&dynamo, "GetRecords", json!({ "ShardIterator": first }));
        assert_eq!(page["Records"].as_array().unwrap().len(), 1);
        assert_eq!(page["Records"][0]["eventName"], "INSERT");
        assert_eq!(page["Records"][0]["awsRegion"], "eu-west-2");
        put(&dynamo, json!({"SS": ["b"]}));
        let next = json!({ "ShardIterator": page["NextShardIterator"] });
        let page = ask(&dynamo, "GetRecords", next);
        assert_eq!(page["Records"].as_array().unwrap().len(), 1);
        let number = page["Records"][0]["dynamodb"]["SequenceNumber"].as_str().unwrap();
        assert!(number.len() >= 21, "{number}");
    }

    #[test]
    fn the_open_shard_looks_like_one_of_aws() {
        let (dynamo, arn) = table();
        for _ in 0..2 {
            let shard = shard(&dynamo, &arn);
            let id = shard["ShardId"].as_str().unwrap();
            assert!((28..=65).contains(&id.len()), "{id}");
            let range = &shard["SequenceNumberRange"];
            assert!(range["StartingSequenceNumber"].as_str().unwrap().len() >= 21);
            assert_eq!(range["EndingSequenceNumber"], Value::Null);
            put(&dynamo, json!({"SS": ["a"]}));
        }
        let described = ask(&dynamo, "DescribeStream", json!({ "StreamArn": arn }));
        assert_eq!(
            described["StreamDescription"]["KeySchema"],
            json!([{"AttributeName": "id", "KeyType": "HASH"}])
        );
    }

    #[test]
    fn the_only_shard_has_no_child_and_no_next() {
        let (dynamo, arn) = table();
        let id = shard(&dynamo, &arn)["ShardId"].clone();
        let filter = json!({"Type": "CHILD_SHARDS", "ShardId": id});
        for body in [
            json!({"StreamArn": arn, "ShardFilter": filter}),
            json!({"StreamArn": arn, "ExclusiveStartShardId": id}),
        ] {
            let answer = ask(&dynamo, "DescribeStream", body);
            assert_eq!(answer["StreamDescription"]["Shards"], json!([]));
        }
    }

    #[test]
    fn a_timestamp_is_refused_as_services_refuse_it_that_do_not_know_it() {
        let (dynamo, arn) = table();
        let refused = iterator(&dynamo, &arn, "AT_TIMESTAMP");
        assert!(refused["__type"].as_str().unwrap().ends_with("#ValidationException"));
    }

    #[test]
    fn another_label_is_another_stream() {
        let (dynamo, arn) = table();
        assert!(arn.starts_with("arn:aws:dynamodb:eu-west-2:123456789012:table/tiny/stream/"));
        let other = home().stream_arn(TABLE, "2024-12-03T08:06:15.779");
        let refused = ask(&dynamo, "DescribeStream", json!({ "StreamArn": other }));
        assert!(refused["__type"].as_str().unwrap().ends_with("#ResourceNotFoundException"));
    }
}
