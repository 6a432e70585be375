//! Turns a page of records into queued messages: evaluates each record, looks its connections up,
//! and queues its messages in record order. A record is skipped only if it needs no work; every
//! other record is tracked until it is settled.

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
use crate::telemetry::{Counts, DropReason, Health, NotifierTelemetry};
use crate::timing::ServiceClock;

/// Lookups of one page in flight at once.
const MAX_LOOKUPS: usize = 16;

/// The record sink of one notifier.
#[derive(Debug)]
pub struct Pipeline {
    /// Decides what each record means.
    pub evaluator: PageEvaluator,
    /// Finds connections.
    pub lookup: Arc<Lookup>,
    /// Posts messages.
    pub dispatcher: Arc<Dispatcher>,
    /// Sends the records of dropped messages, if there is a queue for them.
    pub dead_letters: Option<Arc<DeadLetterSender>>,
    /// Memory for records in flight, in KiB.
    pub memory: Arc<Semaphore>,
    /// All of that memory, in KiB. A record that needs more gets all of it.
    pub memory_kib: u32,
    /// The service's clock.
    pub clock: Arc<ServiceClock>,
    /// Where invalid records are reported.
    pub health: Arc<Health>,
    /// Counts records.
    pub telemetry: NotifierTelemetry,
    /// Stops the pipeline before the next record. Shared with the stream consumer.
    pub stop: CancellationToken,
}

impl RecordSink for Pipeline {
    fn process(&self, batch: RecordBatch) -> BoxFuture<'_, BatchOutcome> {
        Box::pin(self.process_batch(batch))
    }
}

/// A record with work to do.
struct PreparedRecord {
    /// The partition key by which connections are looked up (`None` for every connection), and their
    /// message. Nothing for an invalid record.
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
    /// Lookups run concurrently and messages are queued in record order. After a stop, records that
    /// are tracked are finished and the rest is left unread.
    async fn process_batch(&self, batch: RecordBatch) -> BatchOutcome {
        let RecordBatch { shard, keys, records, progress } = batch;
        let lookup = self.lookup.begin_page(self.clock.now());
        let mut lookups = FuturesOrdered::new();
        let mut page = self.evaluator.begin(records, keys.clone());
        while let Some(slice) = self.next_slice(&mut page, &*progress, &mut lookups).await {
            let mut counts = Counts::default();
            for (number, decision) in slice.decisions {
                if self.stop.is_cancelled() {
                    break;
                }
                let prepared = decision.and_then(|(decision, record)| {
                    self.prepare(&shard, &keys, decision, record, &mut counts)
                });
                let Some(PreparedRecord { target, dead_letter: letter }) = prepared else {
                    progress.skip(number);
                    continue;
                };
                let kib = memory_kib(target.as_ref(), letter.as_ref());
                let held = loop {
                    // Messages that are ready are queued during the wait, because delivering them
                    // frees memory.
                    tokio::select! {
                        biased;
                        held = self.reserve_memory(kib), if lookups.len() < MAX_LOOKUPS => break held,
                        Some(found) = lookups.next() => self.enqueue(found).await,
                    }
                };
                let held = held.filter(|_| !fault!(MemoryReleasedEarly));
                let slot = progress.track(number.clone());
                let ticket = AckHandle::new(progress.clone(), slot, number, letter, held);
                match target {
                    Some((key, message)) => {
                        let found = find_recipients(&lookup, key, message, ticket);
                        match fault!(MessagesQueuedOutOfOrder) {
                            true => lookups.push_front(found),
                            false => lookups.push_back(found),
                        }
                    }
                    None => ticket.ack_dropped(DropReason::Invalid),
                }
            }
            self.telemetry.records_read(&counts);
        }
        while let Some(found) = lookups.next().await {
            self.enqueue(found).await;
        }
        match self.stop.is_cancelled() {
            true => BatchOutcome::Stopped,
            false => BatchOutcome::Accepted,
        }
    }

    /// The next decisions of a page. Queues messages that are ready during the wait; `None` at the
    /// end of the page or after a stop.
    async fn next_slice(
        &self,
        page: &mut PageEvaluation<'_>,
        progress: &dyn RecordProgress,
        lookups: &mut FuturesOrdered<impl Future<Output = Recipients>>,
    ) -> Option<EvaluatedSlice> {
        let mut evaluated = pin!(self.evaluate(page, progress));
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                slice = &mut evaluated => return slice,
                Some(found) = lookups.next() => self.enqueue(found).await,
            }
        }
    }

    async fn evaluate(
        &self,
        page: &mut PageEvaluation<'_>,
        progress: &dyn RecordProgress,
    ) -> Option<EvaluatedSlice> {
        let prefiltered = page.prefilter();
        if let Some(number) = prefiltered.skipped_through {
            progress.skip(number);
        }
        let (old, skipped) = (prefiltered.before_start, prefiltered.skipped);
        self.telemetry.records_read(&Counts { before_start: old, skipped, ..Counts::default() });
        let slice = page.evaluate().await?;
        self.telemetry.evaluated(slice.elapsed);
        Some(slice)
    }

    /// The work that a decision asks for, if any.
    fn prepare(
        &self,
        shard: &ShardId,
        keys: &KeySchema,
        decision: Decision,
        record: Record,
        counts: &mut Counts,
    ) -> Option<PreparedRecord> {
        let (field, problem) = match decision {
            Decision::Notify(notification) => {
                match self.lookup.check_key_type(notification.lookup.as_ref()) {
                    Ok(()) => {
                        counts.matched += 1;
                        return Some(self.notify(shard, notification, record));
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
        self.report_invalid(&record.sequence_number, keys, &field, &problem);
        let letter = self.dead_letter(shard, record)?;
        Some(PreparedRecord { target: None, dead_letter: Some(letter) })
    }

    fn notify(
        &self,
        shard: &ShardId,
        notification: Notification,
        record: Record,
    ) -> PreparedRecord {
        let Notification { lookup, body, keys_only } = notification;
        let (item, created) = (record.keys.clone(), record.approximate_creation_time);
        let letter = self.dead_letter(shard, record);
        let beside = letter.as_ref().map_or(0, |letter| letter.record.size());
        let message = Message { body, keys_only, item, created_at: created, record_bytes: beside };
        PreparedRecord { target: Some((lookup, message)), dead_letter: letter }
    }

    /// The dead letter that is sent if a message of the record is dropped.
    fn dead_letter(&self, shard: &ShardId, change: Record) -> Option<PendingDeadLetter> {
        let by = self.dead_letters.clone()?;
        Some(PendingDeadLetter { record: change, shard: shard.clone(), sender: by })
    }

    /// Counts a record on which an expression failed. Reports it at a bounded rate.
    fn report_invalid(
        &self,
        number: &SequenceNumber,
        keys: &KeySchema,
        field: &str,
        problem: &str,
    ) {
        if self.telemetry.invalid(number, keys, field, problem) {
            self.health.invalid(invalid_record(keys, field, problem));
        }
    }

    /// Waits for a record's share of the memory.
    async fn reserve_memory(&self, kib: u32) -> Option<OwnedSemaphorePermit> {
        self.memory.clone().acquire_many_owned(kib.min(self.memory_kib)).await.ok()
    }

    async fn enqueue(&self, recipients: Recipients) {
        let Recipients { connections, message, ack: ticket } = recipients;
        self.dispatcher.send(connections, message, ticket).await;
    }
}

async fn find_recipients(
    lookup: &LookupSession,
    key: Option<AttributeValue>,
    message: Message,
    ticket: AckHandle,
) -> Recipients {
    let connections = lookup.find(key).await;
    Recipients { connections, message, ack: ticket }
}

/// The memory that a record takes until it is settled, in KiB.
fn memory_kib(
    target: Option<&(Option<AttributeValue>, Message)>,
    letter: Option<&PendingDeadLetter>,
) -> u32 {
    match target {
        Some((_, message)) => message.kib(),
        None => {
            let bytes = letter.map_or(0, |letter| letter.record.size());
            u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
        }
    }
}

/// The Event note for a record on which an expression failed.
fn invalid_record(keys: &KeySchema, field: &str, problem: &str) -> String {
    format!(
        "{field} failed on a record with key attributes {keys}: {problem}; fix the expression, the operator's log has the sequence number"
    )
}
