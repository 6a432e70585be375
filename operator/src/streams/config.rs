//! Configuration of the stream consumer: which streams it reads, from where, and how.

use std::time::Duration;

use jiff::Timestamp;

use crate::model::{RequiredImages, StreamLabel};

/// Configuration of a stream consumer.
#[derive(Clone, Debug)]
pub struct ConsumerConfig {
    /// ARN of the table.
    pub table: String,
    /// Streams of the table to consume.
    pub source: StreamSource,
    /// Images that the records of a stream must contain.
    pub required_images: RequiredImages,
    /// Poll interval of an idle shard.
    pub poll_interval: Duration,
    /// Maximum number of pages that the sink processes at once. A page has up to 1,000 records or 1 MB.
    pub max_pages: usize,
    /// Whether a data gap stops the consumer. Otherwise it continues with the oldest record that is
    /// left.
    pub stop_on_gap: bool,
}

impl ConsumerConfig {
    /// Name of the streams in condition messages: an ARN, or an ARN pattern.
    pub fn stream_name(&self) -> String {
        match &self.source {
            StreamSource::Stream(label) => label.arn(&self.table),
            StreamSource::Table => format!("{}/stream/*", self.table),
        }
    }
}

/// Streams of a table to consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamSource {
    /// Only this stream.
    Stream(StreamLabel),
    /// The newest stream. Once it is drained, the consumer continues with the stream that follows
    /// it.
    Table,
}

/// Where a consumer begins without a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InitialPosition {
    /// At records that are written from now on.
    Latest,
    /// At the oldest record in the stream.
    TrimHorizon,
    /// At the first record that is not older than this time.
    AtTimestamp(Timestamp),
}
