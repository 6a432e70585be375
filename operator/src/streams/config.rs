//! Which streams to consume, from where, and how.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::{RequiredImages, StreamLabel};

/// What to consume, and how.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// The ARN of the table.
    pub table: String,
    /// Which of its streams to consume.
    pub source: StreamSource,
    /// Images that a stream's records must carry.
    pub required_images: RequiredImages,
    /// How often to poll a quiet shard.
    pub poll_interval: Duration,
    /// Pages in memory at once. A page has up to 1,000 records or 1 MB.
    pub max_pages: usize,
    /// Whether lost records stop the consumer. Otherwise it continues with the oldest record left.
    pub stop_on_gap: bool,
}

impl ConsumerConfig {
    /// The streams as condition messages name them: an ARN, or an ARN pattern.
    pub fn stream_name(&self) -> String {
        match &self.source {
            StreamSource::Stream(label) => label.arn(&self.table),
            StreamSource::Table => format!("{}/stream/*", self.table),
        }
    }
}

/// Which of a table's streams are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamSource {
    /// This one.
    Stream(StreamLabel),
    /// The newest; when another one follows it, that one once this one is read to its end.
    Table,
}

/// Where reading begins without a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialPosition {
    /// With records written from now on.
    Latest,
    /// With the oldest record that the stream keeps.
    TrimHorizon,
    /// With the first record that is not older than this.
    AtTimestamp(Timestamp),
}
