//! Parses a GetRecords response directly into records. Pure.
//!
//! The SDK's own types contain maps of maps. Building them and converting them to records takes
//! longer than the rest of the work on most records. The parser rejects every response that the SDK
//! rejects, except for malformed values in unused fields.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::str::{self, Utf8Error};

use aws_smithy_types::base64;
use bytes::Bytes;
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, Visitor};

use crate::model::{
    AttributeValue, EventName, Item, Record, SequenceNumber, UnixSeconds, UserIdentity,
};
use crate::streams::{RecordPage, ShardIterator};

/// A malformed response. The error contains none of its text, which may be the value of an item.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// The body is not UTF-8.
    #[error("the response is not UTF-8: {0}")]
    NotUtf8(#[from] Utf8Error),
    /// The body is not JSON, or not the documented JSON.
    #[error("the response does not match the DynamoDB API at line {line}, column {column}")]
    UnexpectedJson { line: usize, column: usize },
    /// The body has no field `Records`.
    #[error("the response has no list of records")]
    NoRecords,
}

impl From<serde_json::Error> for ParseError {
    fn from(error: serde_json::Error) -> Self {
        Self::UnexpectedJson { line: error.line(), column: error.column() }
    }
}

/// Parses the body of a response. DynamoDB's values have at most 32 levels, each of which is two
/// levels of JSON. JSON with more than 127 levels is rejected.
pub fn parse_get_records(body: &[u8]) -> Result<RecordPage, ParseError> {
    let JsonObject(Body { records, next }) = serde_json::from_str(str::from_utf8(body)?)?;
    // Without this check, another JSON object with status 200 would mean the end of the shard.
    let records = records.ok_or(ParseError::NoRecords)?;
    let total = records.len();
    let records: Vec<_> =
        records.into_iter().filter_map(|JsonObject(record)| to_record(record)).collect();
    let malformed = total - records.len();
    let next_iterator = next.map(ShardIterator);
    Ok(RecordPage { records, malformed, next_iterator, service_time: None })
}

/// Converts a record; `None` if a mandatory field is missing.
fn to_record(record: JsonRecord) -> Option<Record> {
    let JsonObject(stream) = record.stream?;
    let user_identity = record.user_identity.map(|JsonObject(identity)| UserIdentity {
        identity_type: identity.kind.unwrap_or_default(),
        principal_id: identity.principal_id.unwrap_or_default(),
    });
    Some(Record {
        event_id: record.event_id.unwrap_or_default(),
        event: record.event?,
        keys: item(stream.keys?),
        old: stream.old.map(item).unwrap_or_default(),
        new: stream.new.map(item).unwrap_or_default(),
        sequence_number: stream.sequence_number?,
        approximate_creation_time: stream.created?,
        user_identity,
    })
}

fn item(JsonObject(Attributes(attributes)): JsonObject<Attributes>) -> Item {
    attributes.into_iter().collect()
}

/// Receives the fields of an object one by one. The last value of a duplicate field wins, a null
/// field is absent, and an unknown field is skipped.
trait FieldSink<'de>: Default {
    /// Reads the value of the field `name`, which is the next value of `object`.
    fn read_field<A: MapAccess<'de>>(&mut self, name: &str, object: &mut A)
    -> Result<(), A::Error>;
}

/// An object with these fields, and the visitor that reads it.
struct JsonObject<T>(T);

impl<'de, T: FieldSink<'de>> Deserialize<'de> for JsonObject<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Self(T::default()))
    }
}

impl<'de, T: FieldSink<'de>> Visitor<'de> for JsonObject<T> {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut object: A) -> Result<Self, A::Error> {
        while let Some(Text(name)) = object.next_key()? {
            self.0.read_field(&name, &mut object)?;
        }
        Ok(self)
    }
}

/// A text that is borrowed from the body if it has no escapes.
#[derive(serde::Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html>
#[derive(Default)]
struct Body {
    records: Option<Vec<JsonObject<JsonRecord>>>,
    next: Option<String>,
}

impl<'de> FieldSink<'de> for Body {
    fn read_field<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "Records" => self.records = object.next_value()?,
            "NextShardIterator" => self.next = object.next_value()?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct JsonRecord {
    event_id: Option<String>,
    event: Option<EventName>,
    stream: Option<JsonObject<StreamRecord>>,
    user_identity: Option<JsonObject<Identity>>,
}

impl<'de> FieldSink<'de> for JsonRecord {
    fn read_field<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "eventID" => self.event_id = object.next_value()?,
            "eventName" => self.event = read_text(object)?.and_then(|name| event_name(&name)),
            "dynamodb" => self.stream = object.next_value()?,
            "userIdentity" => self.user_identity = object.next_value()?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct StreamRecord {
    created: Option<UnixSeconds>,
    keys: Option<JsonObject<Attributes>>,
    old: Option<JsonObject<Attributes>>,
    new: Option<JsonObject<Attributes>>,
    sequence_number: Option<SequenceNumber>,
}

impl<'de> FieldSink<'de> for StreamRecord {
    fn read_field<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            "ApproximateCreationDateTime" => {
                let seconds: Option<f64> = object.next_value()?;
                self.created = seconds.map(|seconds| UnixSeconds(seconds.floor() as i64));
            }
            "Keys" => self.keys = object.next_value()?,
            "OldImage" => self.old = object.next_value()?,
            "NewImage" => self.new = object.next_value()?,
            "SequenceNumber" => {
                let number = read_text(object)?;
                self.sequence_number = number.and_then(|number| SequenceNumber::parse(&number));
            }
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Identity {
    kind: Option<String>,
    principal_id: Option<String>,
}

impl<'de> FieldSink<'de> for Identity {
    fn read_field<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        object: &mut A,
    ) -> Result<(), A::Error> {
        match name {
            // The API uses the first spelling, Lambda events use the second, and emulators use
            // both.
            "Type" | "type" => self.kind = object.next_value()?,
            "PrincipalId" | "principalId" => self.principal_id = object.next_value()?,
            _ => skip(object)?,
        }
        Ok(())
    }
}

#[derive(Default)]
struct Attributes(Vec<(String, AttributeValue)>);

impl<'de> FieldSink<'de> for Attributes {
    fn read_field<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        object: &mut A,
    ) -> Result<(), A::Error> {
        let Value(value) = object.next_value()?;
        self.0.push((name.to_owned(), value));
        Ok(())
    }
}

/// An attribute value.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_AttributeValue.html>
struct Value(AttributeValue);

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let JsonObject(TaggedValue(value)) = JsonObject::deserialize(deserializer)?;
        value.map(Self).ok_or_else(|| Error::custom("an attribute value without a type"))
    }
}

/// The JSON object of an attribute value. The name of its only field is the type.
#[derive(Default)]
struct TaggedValue(Option<AttributeValue>);

impl<'de> FieldSink<'de> for TaggedValue {
    fn read_field<A: MapAccess<'de>>(
        &mut self,
        name: &str,
        object: &mut A,
    ) -> Result<(), A::Error> {
        let value = match name {
            "S" => object.next_value::<Option<_>>()?.map(AttributeValue::S),
            "N" => object.next_value::<Option<_>>()?.map(AttributeValue::N),
            "B" => object.next_value::<Option<_>>()?.map(|Blob(bytes)| AttributeValue::B(bytes)),
            "BOOL" => object.next_value::<Option<_>>()?.map(AttributeValue::Bool),
            "NULL" => object.next_value::<Option<bool>>()?.map(|_| AttributeValue::Null),
            "SS" => object.next_value::<Option<_>>()?.map(AttributeValue::Ss),
            "NS" => object.next_value::<Option<_>>()?.map(AttributeValue::Ns),
            "BS" => {
                let blobs: Option<BTreeSet<_>> = object.next_value()?;
                blobs.map(|it| AttributeValue::Bs(it.into_iter().map(|Blob(it)| it).collect()))
            }
            "L" => {
                let values: Option<Vec<_>> = object.next_value()?;
                values.map(|it| AttributeValue::L(it.into_iter().map(|Value(it)| it).collect()))
            }
            "M" => object.next_value::<Option<_>>()?.map(|map| AttributeValue::M(item(map))),
            "__type" => {
                skip(object)?;
                None
            }
            // The types of DynamoDB are a closed set. `value_from_sdk` treats an unknown type in
            // the same way.
            _ => object.next_value::<Option<IgnoredAny>>()?.map(|_| AttributeValue::Null),
        };
        if value.is_some() && self.0.is_some() {
            return Err(Error::custom("an attribute value with several types"));
        }
        self.0 = self.0.take().or(value);
        Ok(())
    }
}

/// A binary value in Base64.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Blob(Bytes);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(text) = Text::deserialize(deserializer)?;
        base64::decode(text).map(|bytes| Self(bytes.into())).map_err(Error::custom)
    }
}

fn event_name(name: &str) -> Option<EventName> {
    let events = [EventName::Insert, EventName::Modify, EventName::Remove];
    events.into_iter().find(|event| event.as_str() == name)
}

fn read_text<'de, A: MapAccess<'de>>(object: &mut A) -> Result<Option<Cow<'de, str>>, A::Error> {
    Ok(object.next_value::<Option<_>>()?.map(|Text(text)| text))
}

fn skip<'de, A: MapAccess<'de>>(object: &mut A) -> Result<(), A::Error> {
    object.next_value().map(|IgnoredAny| ())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A page with one complete record.
    fn page() -> serde_json::Value {
        json!({
            "Records": [{
                "eventID": "event", "eventName": "MODIFY", "eventVersion": "1.1",
                "dynamodb": {
                    "ApproximateCreationDateTime": 1_790_000_000, "SizeBytes": 10,
                    "Keys": {"PK": {"S": "a"}},
                    "SequenceNumber": "100000000000000000001",
                },
            }],
            "NextShardIterator": "next",
        })
    }

    fn parse(page: &serde_json::Value) -> RecordPage {
        parse_get_records(page.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn keeps_values_of_every_type() {
        let body = r#"{"Records": [{
            "eventName": "INSERT",
            "userIdentity": {"type": "Service", "principalId": "dynamodb.amazonaws.com"},
            "dynamodb": {
                "NewImage": {
                    "Z": {"N": "12345678901234567890123456789012345678"}, "A": {"S": "\ud83d\ude00\/"},
                    "B": {"B": "AAE="}, "C": {"BOOL": false}, "D": {"NULL": true}, "A": {"S": "last"},
                    "E": {"SS": ["b", "a", "b"]}, "F": {"NS": ["1E+2"]}, "G": {"BS": ["AQ==", "AA=="]},
                    "H": {"L": [{"S": "\ud83d\ude00\/"}, {"M": {"\u0061": {"X": [1]}}}]}
                },
                "Keys": {}, "OldImage": null,
                "ApproximateCreationDateTime": 1.79e9, "SequenceNumber": "7"
            }
        }]}"#;
        let record = parse_get_records(body.as_bytes()).unwrap().records.remove(0);
        let text = |text: &str| AttributeValue::S(text.to_owned());
        let bytes = |bytes: &'static [u8]| Bytes::from_static(bytes);
        let inner = Item::from([("a".to_owned(), AttributeValue::Null)]);
        let new = [
            ("A", text("last")),
            ("B", AttributeValue::B(bytes(&[0, 1]))),
            ("C", AttributeValue::Bool(false)),
            ("D", AttributeValue::Null),
            ("E", AttributeValue::Ss(["a", "b"].map(str::to_owned).into())),
            ("F", AttributeValue::Ns(["1E+2".to_owned()].into())),
            ("G", AttributeValue::Bs([bytes(&[0]), bytes(&[1])].into())),
            ("H", AttributeValue::L(vec![text("😀/"), AttributeValue::M(inner)])),
            ("Z", AttributeValue::N("12345678901234567890123456789012345678".to_owned())),
        ];
        assert_eq!(record.new, new.map(|(name, value)| (name.to_owned(), value)).into());
        assert_eq!((record.keys, record.old), (Item::new(), Item::new()));
        assert_eq!(
            (record.event, record.approximate_creation_time),
            (EventName::Insert, UnixSeconds(1_790_000_000))
        );
        assert_eq!(record.user_identity.unwrap().principal_id, "dynamodb.amazonaws.com");
    }

    #[test]
    fn counts_records_without_mandatory_fields_and_reads_the_others() {
        let complete = &page()["Records"][0];
        let without = |pointer: &str| {
            let mut record = complete.clone();
            *record.pointer_mut(pointer).unwrap() = serde_json::Value::Null;
            record
        };
        let mandatory = [
            "/eventName",
            "/dynamodb",
            "/dynamodb/ApproximateCreationDateTime",
            "/dynamodb/Keys",
            "/dynamodb/SequenceNumber",
        ];
        let mut page = page();
        page["Records"] = mandatory.map(without).into_iter().chain([complete.clone()]).collect();
        let page = parse(&page);
        assert_eq!((page.records.len(), page.malformed), (1, 5));
        assert_eq!(page.next_iterator, Some(ShardIterator("next".to_owned())));
    }

    #[test]
    fn rounds_times_down_to_seconds() {
        for (text, seconds) in [
            ("1790000000", 1_790_000_000),
            ("1790000000.999", 1_790_000_000),
            ("1.790000001E+9", 1_790_000_001),
            ("-0.5", -1),
            ("-7", -7),
        ] {
            let page = page().to_string().replace("1790000000", text);
            let created =
                parse_get_records(page.as_bytes()).unwrap().records[0].approximate_creation_time;
            assert_eq!(created, UnixSeconds(seconds), "{text}");
        }
    }

    #[test]
    fn reads_an_item_of_maximum_depth() {
        let mut page = page();
        let deepest = (0..32).fold(json!({"S": "a"}), |value, n| match n % 2 {
            0 => json!({"L": [value]}),
            _ => json!({"M": {"a": value}}),
        });
        page["Records"][0]["dynamodb"]["NewImage"] = json!({"a": deepest});
        assert_eq!(parse(&page).records[0].new.len(), 1);
    }

    #[test]
    fn reports_malformed_responses_without_values() {
        let cases: [(&str, &[u8]); 8] = [
            ("an empty body", b""),
            ("an HTML page", b"<html>secret</html>"),
            ("an array", br#"["secret"]"#),
            ("another object", br#"{"message": "secret"}"#),
            ("no list", br#"{"Records": null, "NextShardIterator": "secret"}"#),
            ("two objects", br#"{"Records": [], "NextShardIterator": "secret"} {}"#),
            ("another type", br#"{"Records": [{"dynamodb": {"Keys": "secret"}}]}"#),
            ("invalid UTF-8", b"{\"NextShardIterator\": \"secret\xff\"}"),
        ];
        for (what, body) in cases {
            let error = parse_get_records(body).expect_err(what);
            assert!(!format!("{error} {error:?}").contains("secret"), "{what}: {error}");
        }
    }
}
