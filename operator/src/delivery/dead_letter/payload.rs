//! What a dead-letter queue gets: the whole stream record as DynamoDB JSON, whose it is, and why and
//! how often it was not delivered. Pure.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use crate::model::{AttributeValue, Item, Record, ShardId};
use crate::telemetry::DropReason;

/// How many messages of a record were given up, by the reason.
pub type DropCounts = BTreeMap<DropReason, u64>;

/// Which notifier a letter is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterSource {
    /// Its namespace and name.
    pub notifier: (String, String),
    /// The ARN of the table.
    pub table: String,
}

/// The letter; without the images if it has to be shorter.
pub fn build_payload(
    from: &DeadLetterSource,
    shard: &ShardId,
    change: &Record,
    losses: &DropCounts,
    is_whole: bool,
) -> String {
    let reasons: Map<_, _> =
        losses.iter().map(|(why, count)| (why.reason().to_owned(), json!(count))).collect();
    let (namespace, name) = &from.notifier;
    // Of one that no message could be made of, nobody knows whom it concerns.
    let addressed = losses.iter().filter(|(why, _)| **why != DropReason::Invalid);
    let mut letter = json!({
        "notifier": {"namespace": namespace, "name": name},
        "reasons": reasons,
        "connections": addressed.map(|(_, count)| count).sum::<u64>(),
        "streamArn": shard.stream.arn(&from.table),
        "shardId": shard.name,
        "record": record(change, is_whole),
    });
    if !is_whole {
        letter["truncated"] = json!(true);
    }
    // A queue refuses these two, unless they are escaped.
    letter.to_string().replace('\u{fffe}', r"\ufffe").replace('\u{ffff}', r"\uffff")
}

/// A record as Lambda gets it.
///
/// <https://docs.aws.amazon.com/lambda/latest/dg/with-ddb.html>
fn record(change: &Record, is_whole: bool) -> Value {
    let mut dynamodb = json!({
        "Keys": item(&change.keys),
        "SequenceNumber": change.sequence_number.as_str(),
    });
    let mut record = json!({
        "eventID": change.event_id,
        "eventName": change.event.as_str(),
        "eventSource": "aws:dynamodb",
    });
    if is_whole {
        dynamodb["ApproximateCreationDateTime"] = json!(change.approximate_creation_time.0);
        for (name, image) in [("NewImage", &change.new), ("OldImage", &change.old)] {
            if !image.is_empty() {
                dynamodb[name] = item(image);
            }
        }
        if let Some(identity) = &change.user_identity {
            record["userIdentity"] =
                json!({"type": identity.identity_type, "principalId": identity.principal_id});
        }
    }
    record["dynamodb"] = dynamodb;
    record
}

fn item(item: &Item) -> Value {
    item.iter().map(|(name, value)| (name.clone(), attribute(value))).collect::<Map<_, _>>().into()
}

fn attribute(value: &AttributeValue) -> Value {
    let binary = |bytes: &bytes::Bytes| json!(STANDARD.encode(bytes));
    let value_of = match value {
        AttributeValue::S(text) | AttributeValue::N(text) => json!(text),
        AttributeValue::B(bytes) => binary(bytes),
        AttributeValue::Bool(bool) => json!(bool),
        AttributeValue::Null => json!(true),
        AttributeValue::Ss(set) | AttributeValue::Ns(set) => json!(set),
        AttributeValue::Bs(set) => set.iter().map(binary).collect(),
        AttributeValue::L(list) => list.iter().map(attribute).collect(),
        AttributeValue::M(map) => item(map),
    };
    json!({value.kind(): value_of})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{EventName, SequenceNumber, StreamLabel, UnixSeconds};

    fn change() -> Record {
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

    fn of(is_whole: bool) -> Value {
        let losses = DropCounts::from([(DropReason::TooLarge, 2), (DropReason::Expired, 1)]);
        serde_json::from_str(&text_of(&change(), &losses, is_whole)).unwrap()
    }

    fn text_of(change: &Record, losses: &DropCounts, is_whole: bool) -> String {
        let from = DeadLetterSource {
            notifier: ("dev".to_owned(), "orders".to_owned()),
            table: "arn:aws:dynamodb:eu-west-1:123456789012:table/orders".to_owned(),
        };
        let shard = ShardId::new(&StreamLabel::new("2024-12-03T08:06:15.779"), "shardId-1");
        build_payload(&from, &shard, change, losses, is_whole)
    }

    #[test]
    fn it_holds_the_record_as_dynamodb_json() {
        let letter = of(true);
        assert_eq!(letter["notifier"], json!({"namespace": "dev", "name": "orders"}));
        assert_eq!(letter["reasons"], json!({"TooLarge": 2, "Expired": 1}));
        assert_eq!(letter["connections"], 3);
        assert_eq!(
            letter["record"]["dynamodb"],
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
        assert_eq!(letter.get("truncated"), None);
    }

    #[test]
    fn a_shorter_one_says_which_record_it_is() {
        let letter = of(false);
        assert_eq!(letter["truncated"], true);
        assert_eq!(letter["record"]["eventID"], "id");
        let dynamodb = json!({"Keys": {"PK": {"S": "order#1"}}, "SequenceNumber": "111"});
        assert_eq!(letter["record"]["dynamodb"], dynamodb);
    }

    #[test]
    fn of_a_change_without_a_message_nobody_knows_whom_it_concerns() {
        let text = text_of(&change(), &DropCounts::from([(DropReason::Invalid, 1)]), true);
        let letter: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&letter["reasons"], &letter["connections"]),
            (&json!({"Invalid": 1}), &json!(0))
        );
    }

    /// The characters that SQS takes:
    /// <https://docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessage.html>
    #[test]
    fn it_has_only_characters_that_the_queue_takes() {
        let any = "\u{0}\u{1f}\t\\\u{7f}\u{fffd}\u{fffe}\u{ffff}\u{10ffff}";
        let mut change = change();
        change.new.insert("Any".to_owned(), AttributeValue::S(any.to_owned()));
        let text = text_of(&change, &DropCounts::from([(DropReason::Expired, 1)]), true);
        let is_taken = |c: char| c >= ' ' && !matches!(c, '\u{fffe}' | '\u{ffff}');
        assert!(text.chars().all(is_taken), "{text}");
        let letter: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(letter["record"]["dynamodb"]["NewImage"]["Any"]["S"], any);
    }
}
