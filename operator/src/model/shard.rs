//! Streams, shards, and settled positions in shards.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::sequence_number::SequenceNumber;
use super::unix_time::UnixSeconds;

/// Label of a stream: the last part of its ARN, which is the time at which the stream was enabled.
/// Labels sort by that time. A clone is cheap.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_Stream.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamLabel(Arc<str>);

impl StreamLabel {
    /// The label as AWS writes it, such as `2024-12-03T08:06:15.779`.
    pub fn new(label: &str) -> Self {
        Self(label.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// When the stream was enabled. `None` if the label is not a time, as with some emulators.
    pub fn enabled_at(&self) -> Option<UnixSeconds> {
        let time: jiff::civil::DateTime = self.0.parse().ok()?;
        let time = time.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
        Some(UnixSeconds(time.timestamp().as_second()))
    }

    /// ARN of the stream, given the ARN of its table.
    pub fn arn(&self, table: &str) -> String {
        format!("{table}/stream/{self}")
    }
}

impl fmt::Display for StreamLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A shard of one of a table's streams. Shards of an earlier stream sort first.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_Shard.html>
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId {
    /// The shard's stream. It is part of the id, because some emulators reuse shard names across
    /// streams.
    pub stream: StreamLabel,
    /// The `ShardId` of the AWS API, 28 to 65 characters.
    pub name: String,
}

impl ShardId {
    pub fn new(stream: &StreamLabel, name: impl Into<String>) -> Self {
        Self { stream: stream.clone(), name: name.into() }
    }

    /// Creation time, parsed from the name: `shardId-`, milliseconds since 1970, a hash. AWS does
    /// not document this form, but Flink's connector relies on it too. Returns `None` for other
    /// names, and for a number that is not a time because it lies before the stream was enabled.
    pub fn created_at(&self) -> Option<UnixSeconds> {
        let milliseconds: i64 = self.name.split('-').nth(1)?.parse().ok()?;
        let created_at = UnixSeconds(milliseconds / 1000);
        let UnixSeconds(enabled_at) = self.stream.enabled_at()?;
        (created_at.0 >= enabled_at.saturating_sub(60)).then_some(created_at)
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Settled position in a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// No record is settled. Reading begins with the oldest record.
    TrimHorizon,
    /// No record is settled. Reading begins at the time at which the notifier began to read.
    Latest,
    /// All records up to and including this one are settled.
    After(SequenceNumber),
    /// All records of a closed shard are settled.
    Finished,
}

/// Positions of shards, as the checkpoint stores them.
pub type ShardPositions = BTreeMap<ShardId, Position>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_creation_time_from_the_name() {
        let label = StreamLabel::new("2019-11-13T10:00:00.123");
        let created_at = |name| ShardId::new(&label, name).created_at();
        assert_eq!(
            created_at("shardId-00000001573689847184-864758bb"),
            Some(UnixSeconds(1_573_689_847))
        );
        for name in [
            "shardId-00000000000000000000-00000000",
            "shardId-000000000001",
            "shardId-one-864758bb",
            "shard",
        ] {
            assert_eq!(created_at(name), None, "{name}");
        }
        let name = "shardId-00000001573689847184-864758bb";
        assert_eq!(ShardId::new(&StreamLabel::new("local"), name).created_at(), None);
    }
}
