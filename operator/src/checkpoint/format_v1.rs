//! Format 1 of the checkpoint: the `data` of a ConfigMap. You can read it, and edit it while the notifier
//! is suspended. A value that does not parse is reported with its key, never guessed.

use std::borrow::Cow;
use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::model::{Position, SequenceNumber, ShardId, StreamLabel, UnixSeconds};

const FORMAT: &str = "1";

/// Keys that are not shards.
const FIELDS: [&str; 5] = ["format", "holder", "epoch", "start", "readAt"];

/// The checkpoint of one notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The operator process that holds the claim.
    pub holder: String,
    /// Increases with every claim, so that each claim is unique.
    pub epoch: u64,
    /// Where reading began.
    pub start: StartPoint,
    /// When every shard without a sequence number was last read, by the service's clock. Records can be
    /// lost if this is more than 24 hours ago. For a shard with a number, the service reports the loss.
    pub read_at: Timestamp,
    /// The position in each shard that is or was read.
    pub shards: BTreeMap<ShardId, Position>,
}

/// The start of reading.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartPoint {
    /// The ARN of the first stream. Later streams of the table may follow it.
    pub stream: String,
    /// The kind of start. The stored key is `position`.
    #[serde(rename = "position")]
    pub kind: StartKind,
    /// When reading began, by the service's clock. With `AtTimestamp`, the time that the spec names.
    /// With `Latest` and `AtTimestamp`, older records are skipped in every shard.
    pub at: Timestamp,
}

impl StartPoint {
    /// The time before which records are skipped, if there is one.
    pub fn skip_before(&self) -> Option<UnixSeconds> {
        match self.kind {
            StartKind::Latest | StartKind::AtTimestamp => Some(UnixSeconds(self.at.as_second())),
            StartKind::TrimHorizon => None,
        }
    }

    /// The ARN of the table, and the stream's label.
    pub fn split_arn(&self) -> (&str, &str) {
        self.stream.split_once("/stream/").unwrap_or_default()
    }

    /// The stream's label: the last part of its ARN.
    pub fn label(&self) -> &str {
        self.split_arn().1
    }
}

/// The kind of start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartKind {
    /// With records written from that time on.
    Latest,
    /// With the oldest record that the stream keeps.
    TrimHorizon,
    /// With records from the time that the spec names.
    AtTimestamp,
}

/// A stored checkpoint that does not parse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Another version of the operator wrote it, or it is not a checkpoint.
    #[error(
        "format {0:?} is unknown; use the version of the operator that wrote it, or delete the checkpoint to start again at startingPosition"
    )]
    Unknown(String),
    /// A key is missing or its value does not parse.
    #[error(
        "key {key:?} {problem}; fix it, or delete the checkpoint to start again at startingPosition"
    )]
    Key {
        /// The key in `data`.
        key: String,
        /// Why it does not parse.
        problem: &'static str,
    },
}

/// The value of a shard's key, as JSON.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry<'a> {
    stream: Cow<'a, str>,
    /// A sequence number, `trimHorizon`, `latest` or `finished`.
    after: Cow<'a, str>,
}

impl Position {
    fn as_text(&self) -> &str {
        match self {
            Self::TrimHorizon => "trimHorizon",
            Self::Latest => "latest",
            Self::Finished => "finished",
            Self::After(number) => number.as_str(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "trimHorizon" => Some(Self::TrimHorizon),
            "latest" => Some(Self::Latest),
            "finished" => Some(Self::Finished),
            number => SequenceNumber::parse(number).map(Self::After),
        }
    }
}

impl Checkpoint {
    /// The `data` to store.
    pub fn to_data(&self) -> BTreeMap<String, String> {
        let mut data = BTreeMap::from([
            ("format".to_owned(), FORMAT.to_owned()),
            ("holder".to_owned(), self.holder.clone()),
            ("epoch".to_owned(), self.epoch.to_string()),
            ("start".to_owned(), json(&self.start)),
            ("readAt".to_owned(), self.read_at.to_string()),
        ]);
        for (shard, position) in &self.shards {
            let ShardId { stream, name } = shard;
            let entry = Entry { stream: stream.as_str().into(), after: position.as_text().into() };
            let is_used = data.contains_key(name);
            let key = if is_used { name.clone() + &suffix(stream.as_str()) } else { name.clone() };
            data.insert(key, json(&entry));
        }
        data
    }

    /// Parses stored `data`.
    ///
    /// # Errors
    ///
    /// Names the first key that is missing or does not parse.
    pub fn from_data(data: &BTreeMap<String, String>) -> Result<Self, FormatError> {
        let format = field(data, "format")?;
        if format != FORMAT {
            return Err(FormatError::Unknown(truncate(format)));
        }
        let epoch = field(data, "epoch")?;
        let epoch = epoch.parse().map_err(|_| problem("epoch", "is not a whole number"))?;
        let start: StartPoint = serde_json::from_str(field(data, "start")?)
            .map_err(|_| problem("start", "is not JSON with stream, position and at"))?;
        if start.label().is_empty() {
            return Err(problem("start", "has a stream that is not the ARN of a stream"));
        }
        // Without the key, assume that nothing was read since the start.
        let read_at = data
            .get("readAt")
            .map_or(Ok(start.at), |at| at.parse())
            .map_err(|_| problem("readAt", "is not a time like 2026-11-22T12:00:00Z"))?;
        let mut shards = BTreeMap::new();
        for (key, value) in data.iter().filter(|(key, _)| !FIELDS.contains(&key.as_str())) {
            let (id, position) = shard(key, value)?;
            if shards.insert(id, position).is_some() {
                return Err(problem(key, "repeats a shard of another key"));
            }
        }
        Ok(Self { holder: field(data, "holder")?.to_owned(), epoch, start, read_at, shards })
    }
}

/// Distinguishes the keys of shards that have the same name in two streams.
fn suffix(stream: &str) -> String {
    format!("_{}", stream.replace(':', "-"))
}

fn field<'a>(data: &'a BTreeMap<String, String>, key: &str) -> Result<&'a str, FormatError> {
    data.get(key).map(String::as_str).ok_or_else(|| problem(key, "is missing"))
}

fn shard(key: &str, value: &str) -> Result<(ShardId, Position), FormatError> {
    let entry: Entry<'_> = serde_json::from_str(value)
        .map_err(|_| problem(key, r#"is not JSON like {"stream":"<label>","after":"<number>"}"#))?;
    if entry.stream.is_empty() {
        return Err(problem(key, "has an empty stream"));
    }
    let name = key.strip_suffix(&suffix(&entry.stream)).unwrap_or(key);
    let position = Position::parse(&entry.after).ok_or_else(|| {
        problem(key, "has an \"after\" that is not a sequence number, latest, start or finished")
    })?;
    Ok((ShardId::new(&StreamLabel::new(&entry.stream), name), position))
}

fn problem(key: &str, problem: &'static str) -> FormatError {
    FormatError::Key { key: truncate(key), problem }
}

/// Bounds a text that a condition quotes, because a user may have edited it.
fn truncate(text: &str) -> String {
    text.chars().take(80).collect()
}

/// Structs of text always serialize. The fallback would not parse, so it cannot pass unnoticed.
fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checkpoint() -> Checkpoint {
        let stream =
            "arn:aws:dynamodb:eu-west-1:123456789012:table/t/stream/2024-12-03T08:06:15.779";
        let number = SequenceNumber::parse("100000000000000000007").unwrap();
        let stream_label = StreamLabel::new("2024-12-03T08:06:15.779");
        let shard = |name: &str| ShardId::new(&stream_label, format!("shardId-0000000{name}"));
        Checkpoint {
            holder: "pod-a".to_owned(),
            epoch: 3,
            start: StartPoint {
                stream: stream.to_owned(),
                kind: StartKind::Latest,
                at: Timestamp::from_second(1_790_000_000).unwrap(),
            },
            read_at: Timestamp::from_second(1_790_000_100).unwrap(),
            shards: BTreeMap::from([
                (shard("1"), Position::Finished),
                (shard("2"), Position::After(number)),
                (shard("3"), Position::Latest),
                (shard("4"), Position::TrimHorizon),
            ]),
        }
    }

    #[test]
    fn parses_what_it_wrote() {
        assert_eq!(Checkpoint::from_data(&checkpoint().to_data()), Ok(checkpoint()));
    }

    #[test]
    fn keeps_shards_of_the_same_name_in_two_streams_apart() {
        let mut both = checkpoint();
        let later = StreamLabel::new("2026-11-22T10:00:00.123");
        let names: Vec<_> = both.shards.keys().map(|id| id.name.clone()).collect();
        both.shards
            .extend(names.iter().map(|name| (ShardId::new(&later, name), Position::TrimHorizon)));
        let data = both.to_data();
        assert_eq!(data.len(), 5 + 8);
        assert_eq!(
            data["shardId-00000002_2026-11-22T10-00-00.123"],
            r#"{"stream":"2026-11-22T10:00:00.123","after":"trimHorizon"}"#
        );
        assert_eq!(Checkpoint::from_data(&data), Ok(both));
        let mut twice = data;
        let entry = twice["shardId-00000002_2026-11-22T10-00-00.123"].clone();
        twice.insert("shardId-00000002".to_owned(), entry);
        let error = Checkpoint::from_data(&twice).unwrap_err().to_string();
        assert!(error.contains("repeats a shard"), "{error}");
    }

    #[test]
    fn writes_readable_values() {
        let data = checkpoint().to_data();
        assert_eq!(
            data["shardId-00000002"],
            r#"{"stream":"2024-12-03T08:06:15.779","after":"100000000000000000007"}"#
        );
        assert_eq!(data["format"], "1");
        assert!(data["start"].contains(r#""position":"Latest","at":"2026-09-21T"#), "{data:?}");
    }

    #[test]
    fn reports_an_invalid_key_by_name() {
        for (key, value, says) in [
            ("format", "2", "\"2\""),
            ("epoch", "many", "\"epoch\" is not a whole number"),
            ("start", "{}", "\"start\" is not JSON"),
            ("shardId-1", "7", "\"shardId-1\" is not JSON"),
            ("start", r#"{"stream":"t","position":"Latest","at":"2026-11-22T12:00:00Z"}"#, "ARN"),
            ("readAt", "yesterday", "\"readAt\" is not a time"),
            ("shardId-1", r#"{"stream":"","after":"7"}"#, "has an empty stream"),
            (
                "shardId-1",
                r#"{"stream":"2024-12-03T08:06:15.779","after":"LATEST"}"#,
                "not a sequence number",
            ),
        ] {
            let mut data = checkpoint().to_data();
            data.insert(key.to_owned(), value.to_owned());
            let error = Checkpoint::from_data(&data).unwrap_err().to_string();
            assert!(error.contains(says), "{key}: {error}");
        }
        let mut data = checkpoint().to_data();
        data.remove("holder");
        let error = Checkpoint::from_data(&data).unwrap_err().to_string();
        assert!(error.contains("\"holder\" is missing"), "{error}");
    }
}
