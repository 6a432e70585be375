//! The boundary between the stream consumer and the delivery pipeline: the consumer hands over one
//! page of one shard at a time, and learns from [`RecordProgress`] which records are settled.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::key_schema::KeySchema;
use super::record::Record;
use super::sequence_number::SequenceNumber;
use super::shard::ShardId;

/// One page of GetRecords of one shard, in stream order. It may be empty.
#[derive(Debug)]
pub struct RecordBatch {
    /// The shard that the page was read from.
    pub shard: ShardId,
    /// The table's key attributes.
    pub keys: KeySchema,
    /// The records, in order.
    pub records: Vec<Record>,
    /// Where the sink reports what becomes of each record.
    pub progress: Arc<dyn RecordProgress>,
}

/// Progress of one shard. Each record of a batch is either skipped, or tracked and later completed.
pub trait RecordProgress: fmt::Debug + Send + Sync + 'static {
    /// Marks a record, and all before it that are not tracked, as settled: it needs no work.
    fn skip(&self, number: SequenceNumber);

    /// Marks a record as in flight, and returns the slot that completes it.
    fn track(&self, number: SequenceNumber) -> u64;

    /// Settles the record of this slot.
    fn complete(&self, slot: u64);
}

/// How far a sink took a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum BatchOutcome {
    /// Every record is skipped or in flight.
    Accepted,
    /// The worker stops: the rest of the batch was not taken, and must be read again.
    Stopped,
}

/// Processes records in the order in which they were read.
pub trait RecordSink: fmt::Debug + Send + Sync + 'static {
    /// Processes one batch. Returns when its messages are queued, which may be long before they are
    /// delivered. The caller must wait for it before it reads the next page of the shard.
    fn process(&self, batch: RecordBatch) -> BoxFuture<'_, BatchOutcome>;
}
