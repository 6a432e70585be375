//! A shard of a stream, and how far it is settled.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::sequence_number::SequenceNumber;
use super::unix_time::UnixSeconds;

/// Which of a table's streams: the last part of a stream's ARN, the time at which it was enabled.
/// Labels sort by that time. Cheap to clone.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_Stream.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamLabel(Arc<str>);

impl StreamLabel {
    /// The label as AWS writes it, such as `2024-12-03T08:06:15.779`.
    pub fn new(label: &str) -> Self {
        Self(label.into())
    }

    /// The label as AWS writes it.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When the stream was enabled, if the label is the time that AWS makes it.
    pub fn enabled_at(&self) -> Option<UnixSeconds> {
        let time: jiff::civil::DateTime = self.0.parse().ok()?;
        let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(UnixSeconds(time.timestamp().as_second()))
    }

    /// The ARN of this stream of a table.
    pub fn arn(&self, table: &str) -> String {
        format!("{table}/stream/{self}")
    }
}

impl fmt::Display for StreamLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard of one of a table's streams; those of an earlier stream sort first.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_Shard.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// Its stream. Some emulators give the only shard of every stream the same name.
    pub stream: StreamLabel,
    /// What AWS calls the shard's id, 28 to 65 characters.
    pub name: String,
}

impl ShardId {
    /// The shard of this name in this stream.
    pub fn new(stream: &StreamLabel, name: impl Into<String>) -> Self {
        Self { stream: stream.clone(), name: name.into() }
    }

    /// When it was made, if its name tells: `shardId-`, the milliseconds since 1970, a hash. That is
    /// not documented, but others rely on it too (Flink's connector). What lies before its stream is
    /// some other number.
    pub fn created_at(&self) -> Option<UnixSeconds> {
        let milliseconds: i64 = self.name.split('-').nth(1)?.parse().ok()?;
        let made_at = UnixSeconds(milliseconds / 1000);
        let UnixSeconds(enabled_at) = self.stream.enabled_at()?;
        (made_at.0 >= enabled_at.saturating_sub(60)).then_some(made_at)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// How far a shard is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Nothing yet; it is read from its oldest record.
    Start,
    /// Nothing yet; it is read from the moment reading began.
    Latest,
    /// Everything up to and with this record.
    After(SequenceNumber),
    /// Everything there is.
    Finished,
}

/// Positions of shards, as the checkpoint stores them.
pub type ShardPositions = BTreeMap<ShardId, Position>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_tells_when_its_shard_was_made() {
        let label = StreamLabel::new("2019-11-13T10:00:00.123");
        let made_at = |name| ShardId::new(&label, name).created_at();
        assert_eq!(
            made_at("shardId-00000001573689847184-864758bb"),
            Some(UnixSeconds(1_573_689_847))
        );
        for name in [
            "shardId-00000000000000000000-00000000",
            "shardId-000000000001",
            "shardId-one-864758bb",
            "shard",
        ] {
            assert_eq!(made_at(name), None, "{name}");
        }
        let name = "shardId-00000001573689847184-864758bb";
        assert_eq!(ShardId::new(&StreamLabel::new("local"), name).created_at(), None);
    }
}
