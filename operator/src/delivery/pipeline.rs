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

use super::ack::Ticket;
use super::lookup::{Lookup, PageLookup};
use super::message::Message;
use crate::delivery::dead_letter::sender::{DeadLetters, Letter};
use crate::delivery::dispatch::dispatcher::Deliverer;
use crate::delivery::lookup::row::Connection;
use crate::model::{
    AttributeValue, BatchOutcome, Change, KeyNames, RecordBatch, RecordProgress, RecordSink,
    SequenceNumber, ShardId,
};
use crate::rules::{Notification, PageEvaluation, PageEvaluator, Slice, Verdict};
use crate::telemetry::{Counts, Dropped, Health, NotifierTelemetry};
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
    pub deliverer: Arc<Deliverer>,
    /// Sends the records of dropped messages, if there is a queue for them.
    pub dead_letters: Option<Arc<DeadLetters>>,
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
    letter: Option<Letter>,
}

/// A message and the connections that receive it.
struct Recipients {
    connections: Vec<Arc<Connection>>,
    message: Message,
    ticket: Ticket,
}

impl Pipeline {
    /// Lookups run concurrently and messages are queued in record order. After a stop, records that
    /// are tracked are finished and the rest is left unread.
    async fn process_batch(&self, batch: RecordBatch) -> BatchOutcome {
        let RecordBatch { shard, keys, records, progress } = batch;
        let lookup = self.lookup.of_page(self.clock.now());
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
                let Some(PreparedRecord { target, letter }) = prepared else {
                    progress.skip(number);
                    continue;
                };
                let kib = kib(target.as_ref(), letter.as_ref());
                let held = loop {
                    // Messages that are ready are queued during the wait, because delivering them
                    // frees memory.
                    tokio::select! {
                        biased;
                        held = self.reserve_memory(kib), if lookups.len() < MAX_LOOKUPS => break held,
                        Some(found) = lookups.next() => self.queue(found).await,
                    }
                };
                let held = held.filter(|_| !fault!(MemoryReleasedEarly));
                let slot = progress.track(number.clone());
                let ticket = Ticket::new(progress.clone(), slot, number, letter, held);
                match target {
                    Some((key, message)) => {
                        let found = find(&lookup, key, message, ticket);
                        match fault!(MessagesQueuedOutOfOrder) {
                            true => lookups.push_front(found),
                            false => lookups.push_back(found),
                        }
                    }
                    None => ticket.lose(Dropped::Invalid),
                }
            }
            self.telemetry.read(&counts);
        }
        while let Some(found) = lookups.next().await {
            self.queue(found).await;
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
    ) -> Option<Slice> {
        let mut evaluated = pin!(self.evaluate(page, progress));
        loop {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return None,
                slice = &mut evaluated => return slice,
                Some(found) = lookups.next() => self.queue(found).await,
            }
        }
    }

    async fn evaluate(
        &self,
        page: &mut PageEvaluation<'_>,
        progress: &dyn RecordProgress,
    ) -> Option<Slice> {
        let prefiltered = page.prefilter();
        if let Some(number) = prefiltered.skipped_through {
            progress.skip(number);
        }
        let (old, skipped) = (prefiltered.before_start, prefiltered.skipped);
        self.telemetry.read(&Counts { old, skipped, ..Counts::default() });
        let slice = page.evaluate().await?;
        self.telemetry.evaluated(slice.elapsed);
        Some(slice)
    }

    /// The work that a decision asks for, if any.
    fn prepare(
        &self,
        shard: &ShardId,
        keys: &KeyNames,
        decision: Verdict,
        record: Change,
        counts: &mut Counts,
    ) -> Option<PreparedRecord> {
        let (field, problem) = match decision {
            Verdict::Notify(notification) => {
                match self.lookup.check(notification.lookup.as_ref()) {
                    Ok(()) => {
                        counts.matched += 1;
                        return Some(self.notify(shard, notification, record));
                    }
                    Err(mismatch) => ("connections.value".to_owned(), mismatch.to_string()),
                }
            }
            Verdict::Skip => {
                counts.skipped += 1;
                return None;
            }
            Verdict::Invalid(invalid) => (invalid.field, invalid.problem),
        };
        self.report_invalid(&record.sequence_number, keys, &field, &problem);
        let letter = self.letter(shard, record)?;
        Some(PreparedRecord { target: None, letter: Some(letter) })
    }

    fn notify(
        &self,
        shard: &ShardId,
        notification: Notification,
        record: Change,
    ) -> PreparedRecord {
        let Notification { lookup, body, keys_only } = notification;
        let (item, created) = (record.keys.clone(), record.created);
        let letter = self.letter(shard, record);
        let beside = letter.as_ref().map_or(0, |letter| letter.change.size());
        let message = Message { body, keys_only, item, created, beside };
        PreparedRecord { target: Some((lookup, message)), letter }
    }

    /// The dead letter that is sent if a message of the record is dropped.
    fn letter(&self, shard: &ShardId, change: Change) -> Option<Letter> {
        let by = self.dead_letters.clone()?;
        Some(Letter { change, shard: shard.clone(), by })
    }

    /// Counts a record on which an expression failed. Reports it at a bounded rate.
    fn report_invalid(&self, number: &SequenceNumber, keys: &KeyNames, field: &str, problem: &str) {
        if self.telemetry.invalid(number, keys, field, problem) {
            self.health.invalid(invalid_record(keys, field, problem));
        }
    }

    /// Waits for a record's share of the memory.
    async fn reserve_memory(&self, kib: u32) -> Option<OwnedSemaphorePermit> {
        self.memory.clone().acquire_many_owned(kib.min(self.memory_kib)).await.ok()
    }

    async fn queue(&self, recipients: Recipients) {
        let Recipients { connections, message, ticket } = recipients;
        self.deliverer.send(connections, message, ticket).await;
    }
}

async fn find(
    lookup: &PageLookup,
    key: Option<AttributeValue>,
    message: Message,
    ticket: Ticket,
) -> Recipients {
    let connections = lookup.find(key).await;
    Recipients { connections, message, ticket }
}

/// The memory that a record takes until it is settled, in KiB.
fn kib(target: Option<&(Option<AttributeValue>, Message)>, letter: Option<&Letter>) -> u32 {
    match target {
        Some((_, message)) => message.kib(),
        None => {
            let bytes = letter.map_or(0, |letter| letter.change.size());
            u32::try_from(bytes / 1024 + 1).unwrap_or(u32::MAX)
        }
    }
}

/// The Event note for a record on which an expression failed.
fn invalid_record(keys: &KeyNames, field: &str, problem: &str) -> String {
    format!(
        "{field} failed on a record with key attributes {keys}: {problem}; fix the expression, the operator's log has the sequence number"
    )
}
