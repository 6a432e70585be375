//! The boundary between the stream consumer and the delivery pipeline. The consumer hands over one
//! page of a shard at a time. The pipeline reports settled records through [`RecordProgress`].

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::key_schema::KeySchema;
use super::record::Record;
use super::sequence_number::SequenceNumber;
use super::shard::ShardId;

/// One page of GetRecords from one shard. It can be empty.
#[derive(Debug)]
pub struct RecordBatch {
    /// The shard that the page was read from.
    pub shard: ShardId,
    /// Key attributes of the table.
    pub keys: KeySchema,
    /// Records, in stream order.
    pub records: Vec<Record>,
    /// Receives the progress of each record.
    pub progress: Arc<dyn RecordProgress>,
}

/// Progress of one shard. Each record of a batch must be either skipped, or tracked and then
/// completed.
pub trait RecordProgress: fmt::Debug + Send + Sync + 'static {
    /// Settles a record that needs no work, and all earlier records that are not tracked.
    fn skip(&self, number: SequenceNumber);

    /// Marks a record as in flight, and returns the slot to complete later.
    fn track(&self, number: SequenceNumber) -> u64;

    /// Settles the record of a slot.
    fn complete(&self, slot: u64);
}

/// How much of a batch a sink accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum BatchOutcome {
    /// Every record is skipped or in flight.
    Accepted,
    /// The worker is stopping. Records that were not accepted must be read again.
    Stopped,
}

/// Processes the records of each shard in the order in which they were read.
pub trait RecordSink: fmt::Debug + Send + Sync + 'static {
    /// Processes one batch. Returns when its messages are queued, which can be long before they are
    /// delivered. The caller must wait for the return before it reads the next page of the shard.
    fn process(&self, batch: RecordBatch) -> BoxFuture<'_, BatchOutcome>;
}
