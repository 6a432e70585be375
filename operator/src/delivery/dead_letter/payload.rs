//! The payload of a dead letter: the stream record as DynamoDB JSON, its notifier, and why and how
//! often its messages were dropped.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::model::{AttributeValue, Item, Record, ShardId};
use crate::telemetry::DropReason;

/// Number of dropped messages of a record, by reason.
pub type DropCounts = BTreeMap<DropReason, u64>;

/// The notifier and the table that a dead letter comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterSource {
    /// Namespace and name.
    pub notifier: (String, String),
    pub table_arn: String,
}

/// Builds the payload. A truncated one identifies the record, but lacks its images.
pub fn build_payload(
    source: &DeadLetterSource,
    shard: &ShardId,
    record: &Record,
    drops: &DropCounts,
    is_truncated: bool,
) -> String {
    let reasons: Map<_, _> =
        drops.iter().map(|(reason, count)| (reason.reason().to_owned(), json!(count))).collect();
    let (namespace, name) = &source.notifier;
    // The connections of an invalid record are unknown.
    let addressed = drops.iter().filter(|(reason, _)| **reason != DropReason::Invalid);
    let mut payload = json!({
        "notifier": {"namespace": namespace, "name": name},
        "reasons": reasons,
        "connections": addressed.map(|(_, count)| count).sum::<u64>(),
        "streamArn": shard.stream.arn(&source.table_arn),
        "shardId": shard.name,
        "record": record_json(record, is_truncated),
    });
    if is_truncated {
        payload["truncated"] = json!(true);
    }
    // SQS rejects these two characters unless they are escaped.
    payload.to_string().replace('\u{fffe}', r"\ufffe").replace('\u{ffff}', r"\uffff")
}

/// A record in the form of a Lambda event.
///
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>
fn record_json(record: &Record, is_truncated: bool) -> Value {
    let mut dynamodb = json!({
        "Keys": item_json(&record.keys),
        "SequenceNumber": record.sequence_number.as_str(),
    });
    let mut event = json!({
        "eventID": record.event_id,
        "eventName": record.event.as_str(),
        "eventSource": "aws:dynamodb",
    });
    if !is_truncated {
        dynamodb["ApproximateCreationDateTime"] = json!(record.approximate_creation_time.0);
        for (name, image) in [("NewImage", &record.new), ("OldImage", &record.old)] {
            if !image.is_empty() {
                dynamodb[name] = item_json(image);
            }
        }
        if let Some(identity) = &record.user_identity {
            event["userIdentity"] =
                json!({"type": identity.identity_type, "principalId": identity.principal_id});
        }
    }
    event["dynamodb"] = dynamodb;
    event
}

fn item_json(item: &Item) -> Value {
    let attributes = item.iter().map(|(name, value)| (name.clone(), attribute_json(value)));
    attributes.collect::<Map<_, _>>().into()
}

fn attribute_json(attribute: &AttributeValue) -> Value {
    let binary = |bytes: &bytes::Bytes| json!(STANDARD.encode(bytes));
    let value = match attribute {
        AttributeValue::S(text) | AttributeValue::N(text) => json!(text),
        AttributeValue::B(bytes) => binary(bytes),
        AttributeValue::Bool(bool) => json!(bool),
        AttributeValue::Null => json!(true),
        AttributeValue::Ss(set) | AttributeValue::Ns(set) => json!(set),
        AttributeValue::Bs(set) => set.iter().map(binary).collect(),
        AttributeValue::L(list) => list.iter().map(attribute_json).collect(),
        AttributeValue::M(map) => item_json(map),
    };
    json!({attribute.kind(): value})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventName, SequenceNumber, StreamLabel, UnixSeconds};

    fn record() -> Record {
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let keys = Item::from([("PK".to_owned(), text("order#1"))]);
        let new = Item::from([
            ("PK".to_owned(), text("order#1")),
            ("Amount".to_owned(), AttributeValue::N("1E+2".to_owned())),
            ("Raw".to_owned(), AttributeValue::B(vec![0, 255].into())),
            ("Tags".to_owned(), AttributeValue::Ss(["a", "b"].map(str::to_owned).into())),
            ("Nested".to_owned(), AttributeValue::L(vec![AttributeValue::Null])),
        ]);
        Record {
            event_id: "id".to_owned(),
            event: EventName::Insert,
            keys,
            old: Item::new(),
            new,
            sequence_number: SequenceNumber::parse("111").unwrap(),
            approximate_creation_time: UnixSeconds(1_795_341_600),
            user_identity: None,
        }
    }

    fn payload(record: &Record, drops: &DropCounts, is_truncated: bool) -> String {
        let source = DeadLetterSource {
            notifier: ("dev".to_owned(), "orders".to_owned()),
            table_arn: "arn:aws:dynamodb:eu-west-1:123456789012:table/orders".to_owned(),
        };
        let shard = ShardId::new(&StreamLabel::new("2024-12-03T08:06:15.779"), "shardId-1");
        build_payload(&source, &shard, record, drops, is_truncated)
    }

    fn parsed_payload(is_truncated: bool) -> Value {
        let drops = DropCounts::from([(DropReason::TooLarge, 2), (DropReason::Expired, 1)]);
        serde_json::from_str(&payload(&record(), &drops, is_truncated)).unwrap()
    }

    #[test]
    fn contains_the_record_as_dynamodb_json() {
        let payload = parsed_payload(false);
        assert_eq!(payload["notifier"], json!({"namespace": "dev", "name": "orders"}));
        assert_eq!(payload["reasons"], json!({"TooLarge": 2, "Expired": 1}));
        assert_eq!(payload["connections"], 3);
        assert_eq!(
            payload["record"]["dynamodb"],
            json!({
                "ApproximateCreationDateTime": 1_795_341_600,
                "Keys": {"PK": {"S": "order#1"}},
                "SequenceNumber": "111",
                "NewImage": {
                    "PK": {"S": "order#1"},
                    "Amount": {"N": "1E+2"},
                    "Raw": {"B": "AP8="},
                    "Tags": {"SS": ["a", "b"]},
                    "Nested": {"L": [{"NULL": true}]},
                },
            })
        );
        assert_eq!(payload.get("truncated"), None);
    }

    #[test]
    fn identifies_the_record_when_truncated() {
        let payload = parsed_payload(true);
        assert_eq!(payload["truncated"], true);
        assert_eq!(payload["record"]["eventID"], "id");
        let dynamodb = json!({"Keys": {"PK": {"S": "order#1"}}, "SequenceNumber": "111"});
        assert_eq!(payload["record"]["dynamodb"], dynamodb);
    }

    #[test]
    fn counts_no_connections_for_an_invalid_record() {
        let text = payload(&record(), &DropCounts::from([(DropReason::Invalid, 1)]), false);
        let payload: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&payload["reasons"], &payload["connections"]),
            (&json!({"Invalid": 1}), &json!(0))
        );
    }

    /// SQS accepts only some characters:
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
    #[test]
    fn contains_only_characters_that_sqs_accepts() {
        let special = "\u{0}\u{1f}\t\\\u{7f}\u{fffd}\u{fffe}\u{ffff}\u{10ffff}";
        let mut record = record();
        record.new.insert("Special".to_owned(), AttributeValue::S(special.to_owned()));
        let text = payload(&record, &DropCounts::from([(DropReason::Expired, 1)]), false);
        let is_accepted = |c: char| c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}');
        assert!(text.chars().all(is_accepted), "{text}");
        let payload: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(payload["record"]["dynamodb"]["NewImage"]["Special"]["S"], special);
    }
}
