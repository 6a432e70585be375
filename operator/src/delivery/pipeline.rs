//! The record sink of a notifier: evaluates each record, looks its connections up, and queues its
//! message.
//!
//! Messages are queued in record order. A record is skipped only if it needs no work. Every other
//! record is tracked until it settles.

use std::pin::pin;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesOrdered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::ack::AckHandle;
use super::lookup::{Lookup, LookupSession};
use super::message::Message;
use crate::delivery::dead_letter::sender::{DeadLetterSender, PendingDeadLetter};
use crate::delivery::dispatch::dispatcher::Dispatcher;
use crate::delivery::lookup::row::Connection;
use crate::model::{
    AttributeValue, BatchOutcome, KeySchema, Record, RecordBatch, RecordProgress, RecordSink,
    SequenceNumber, ShardId,
};
use crate::rules::{Decision, EvaluatedSlice, Notification, PageEvaluation, PageEvaluator};
use crate::telemetry::{DropReason, Health, NotifierTelemetry, RecordCounts};
use crate::timing::ServiceClock;

/// Maximum number of lookups in flight for one page.
const MAX_LOOKUPS: usize = 16;

/// The record sink of one notifier.
#[derive(Debug)]
pub struct Pipeline {
    pub evaluator: PageEvaluator,
    pub lookup: Arc<Lookup>,
    pub dispatcher: Arc<Dispatcher>,
    /// `None` without a dead-letter queue.
    pub dead_letters: Option<Arc<DeadLetterSender>>,
    /// Memory for records in flight, in KiB.
    pub memory: Arc<Semaphore>,
    /// Size of `memory`, in KiB. A record that needs more reserves all of it.
    pub memory_kib: u32,
    pub clock: Arc<ServiceClock>,
    pub health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    /// Stops the pipeline before the next record. Shared with the stream consumer.
    pub stop: CancellationToken,
}

impl RecordSink for Pipeline {
    fn process(&self, batch: RecordBatch) -> BoxFuture<'_, BatchOutcome> {
        Box::pin(self.process_batch(batch))
    }
}

/// A record that needs work.
struct PreparedRecord {
    /// The message, and the partition key by which its connections are looked up. A key of `None`
    /// selects every connection. The target of an invalid record is `None`.
    target: Option<(Option<AttributeValue>, Message)>,
    dead_letter: Option<PendingDeadLetter>,
}

/// A message and the connections that receive it.
struct Recipients {
    connections: Vec<Arc<Connection>>,
    message: Message,
    ack: AckHandle,
}

impl Pipeline {
    /// Processes one page. After a stop, it finishes the tracked records and ignores the rest.
    async fn process_batch(&self, batch: RecordBatch) -> BatchOutcome {
        let RecordBatch { shard, keys, records, progress } = batch;
        let session = self.lookup.begin_page(self.clock.now());
        let mut lookups = FuturesOrdered::new();
        let mut page = self.evaluator.begin(records, keys.clone());
        while let Some(slice) = self.next_slice(&mut page, &*progress, &mut lookups).await {
            let mut counts = RecordCounts::default();
            for (sequence_number, decision) in slice.decisions {
                if self.stop.is_cancelled() {
                    break;
                }
                let prepared = decision.and_then(|(decision, record)| {
                    self.prepare_record(&shard, &keys, decision, record, &mut counts)
                });
                let Some(PreparedRecord { target, dead_letter }) = prepared else {
                    progress.skip(sequence_number);
                    continue;
                };
                let kib = memory_kib(target.as_ref(), dead_letter.as_ref());
                let memory = self.reserve_memory(kib, &mut lookups).await;
                let memory = memory.filter(|_| !fault!(MemoryReleasedEarly));
                let slot = progress.track(sequence_number.clone());
                let ack =
                    AckHandle::new(progress.clone(), slot, sequence_number, dead_letter, memory);
                match target {
                    Some((key, message)) => {
                        let recipients = find_recipients(&session, key, message, ack);
                        match fault!(MessagesQueuedOutOfOrder) {
                            true => lookups.push_front(recipients),
                            false => lookups.push_back(recipients),
                        }
                    }
                    None => ack.ack_dropped(DropReason::Invalid),
                }
            }
            self.telemetry.records_read(&counts);
        }
        while let Some(recipients) = lookups.next().await {
            self.queue_message(recipients).await;
        }
        match self.stop.is_cancelled() {
            true => BatchOutcome::Stopped,
            false => BatchOutcome::Accepted,
        }
    }

    /// Returns the next decisions of a page, or `None` at its end or after a stop. Meanwhile it
    /// queues the messages whose lookups are complete.
    async fn next_slice(
        &self,
        page: &mut PageEvaluation<'_>,
        progress: &dyn RecordProgress,
        lookups: &mut FuturesOrdered<impl Future<Output = Recipients>>,
    ) -> Option<EvaluatedSlice> {
        let mut evaluated = pin!(self.evaluate_slice(page, progress));
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                slice = &mut evaluated => return slice,
                Some(recipients) = lookups.next() => self.queue_message(recipients).await,
            }
        }
    }

    async fn evaluate_slice(
        &self,
        page: &mut PageEvaluation<'_>,
        progress: &dyn RecordProgress,
    ) -> Option<EvaluatedSlice> {
        let prefiltered = page.prefilter();
        if let Some(sequence_number) = prefiltered.skipped_through {
            progress.skip(sequence_number);
        }
        let (before_start, skipped) = (prefiltered.before_start, prefiltered.skipped);
        self.telemetry.records_read(&RecordCounts {
            before_start,
            skipped,
            ..RecordCounts::default()
        });
        let slice = page.evaluate().await?;
        self.telemetry.expressions_evaluated(slice.elapsed);
        Some(slice)
    }

    /// Waits until a lookup may start and `kib` of memory are free. Meanwhile it queues the
    /// messages whose lookups are complete, because their delivery frees memory.
    async fn reserve_memory(
        &self,
        kib: u32,
        lookups: &mut FuturesOrdered<impl Future<Output = Recipients>>,
    ) -> Option<OwnedSemaphorePermit> {
        let acquire = || self.memory.clone().acquire_many_owned(kib.min(self.memory_kib));
        loop {
            tokio::select! {
                biased;
                memory = acquire(), if lookups.len() < MAX_LOOKUPS => return memory.ok(),
                Some(recipients) = lookups.next() => self.queue_message(recipients).await,
            }
        }
    }

    /// Prepares the work that a decision requires, if any.
    fn prepare_record(
        &self,
        shard: &ShardId,
        keys: &KeySchema,
        decision: Decision,
        record: Record,
        counts: &mut RecordCounts,
    ) -> Option<PreparedRecord> {
        let (field, problem) = match decision {
            Decision::Notify(notification) => {
                match self.lookup.check_key_type(notification.lookup.as_ref()) {
                    Ok(()) => {
                        counts.matched += 1;
                        return Some(self.prepare_notification(shard, notification, record));
                    }
                    Err(mismatch) => ("connections.value".to_owned(), mismatch.to_string()),
                }
            }
            Decision::Skip => {
                counts.skipped += 1;
                return None;
            }
            Decision::Invalid(invalid) => (invalid.field, invalid.problem),
        };
        self.report_invalid_record(&record.sequence_number, keys, &field, &problem);
        let dead_letter = self.pending_dead_letter(shard, record)?;
        Some(PreparedRecord { target: None, dead_letter: Some(dead_letter) })
    }

    fn prepare_notification(
        &self,
        shard: &ShardId,
        notification: Notification,
        record: Record,
    ) -> PreparedRecord {
        let Notification { lookup, body, keys_only } = notification;
        let (item_key, created_at) = (record.keys.clone(), record.approximate_creation_time);
        let dead_letter = self.pending_dead_letter(shard, record);
        let record_bytes = dead_letter.as_ref().map_or(0, |it| it.record.size());
        let message = Message { body, keys_only, item_key, created_at, record_bytes };
        PreparedRecord { target: Some((lookup, message)), dead_letter }
    }

    /// The dead letter to send if a message of the record is dropped.
    fn pending_dead_letter(&self, shard: &ShardId, record: Record) -> Option<PendingDeadLetter> {
        let sender = self.dead_letters.clone()?;
        Some(PendingDeadLetter { record, shard: shard.clone(), sender })
    }

    /// Counts a record on which an expression failed, and reports it at a bounded rate.
    fn report_invalid_record(
        &self,
        sequence_number: &SequenceNumber,
        keys: &KeySchema,
        field: &str,
        problem: &str,
    ) {
        if self.telemetry.invalid_record(sequence_number, keys, field, problem) {
            self.health.report_invalid_record(invalid_record_note(keys, field, problem));
        }
    }

    async fn queue_message(&self, recipients: Recipients) {
        let Recipients { connections, message, ack } = recipients;
        self.dispatcher.queue_message(connections, message, ack).await;
    }
}

async fn find_recipients(
    session: &LookupSession,
    key: Option<AttributeValue>,
    message: Message,
    ack: AckHandle,
) -> Recipients {
    let connections = session.find_connections(key).await;
    Recipients { connections, message, ack }
}

/// Memory that a record holds until it settles, in KiB, rounded up.
fn memory_kib(
    target: Option<&(Option<AttributeValue>, Message)>,
    dead_letter: Option<&PendingDeadLetter>,
) -> u32 {
    match target {
        Some((_, message)) => message.size_kib(),
        None => {
            let bytes = dead_letter.map_or(0, |it| it.record.size());
            u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
        }
    }
}

/// The Event note for a record on which an expression failed.
fn invalid_record_note(keys: &KeySchema, field: &str, problem: &str) -> String {
    format!(
        "{field} failed on a record with key attributes {keys}: {problem}; fix the expression, the operator's log has the sequence number"
    )
}
