//! Reads one shard to its end and puts every matching change to work, in order.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::progress::Progress;
use super::sweep::{Sweeper, newest};
use super::trouble::{self, CALL_LIMIT, LONGEST_WAIT, late};
use crate::backoff::{Failing, Random};
use crate::delivery::{Connection, Connections, Deliverer, Gateway, Lookup, NotAKey, Ticket};
use crate::notifier::{Notification, Notifier, Verdict};
use crate::record::{Change, KeyNames, SequenceNumber, ShardId, UnixSeconds};
use crate::stream::{Read, ShardReader, StreamError, StreamErrorKind, Streams};
use crate::telemetry::{Counts, Health, NotifierTelemetry, Part};

/// From so many records on, a page is taken to be full: records of 1 KB and more fill it sooner.
const FULL_PAGE: usize = 500;

/// How soon a shard is asked again that had a few records.
const BUSY_INTERVAL: Duration = Duration::from_millis(25);

/// A shard that could not be read for so long, because its records wait, is not Ready.
const HELD_UP: Duration = Duration::from_secs(60);

/// Lookups of one shard under way at once.
const LOOKUPS: usize = 16;

/// What records at work may take, over all shards of a notifier, in KiB of message: 16 MiB.
pub const MEMORY: u32 = 16 * 1024;

/// What all shards of a notifier share.
#[derive(Debug)]
pub struct Shared<C, G> {
    pub notifier: Arc<Notifier>,
    pub keys: KeyNames,
    pub not_before: Option<UnixSeconds>,
    pub lookup: Arc<Lookup<C>>,
    pub deliverer: Arc<Deliverer<C, G>>,
    pub memory: Arc<Semaphore>,
    pub poll_interval: Duration,
    pub stream: String,
    pub sweeper: Sweeper,
    pub health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    pub random: Arc<Random>,
    pub stop: CancellationToken,
}

impl<C, G> Shared<C, G> {
    /// Lists the shards for ever, for all who look at the sweeper.
    pub async fn sweep<S: Streams>(&self, streams: &S) -> Infallible {
        let Self { sweeper, stream, health, telemetry, random, .. } = self;
        sweeper.run(streams, stream, health, telemetry, random).await
    }
}

/// How reading a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Everything it has is settled.
    Finished,
    /// It was told to stop.
    Stopped,
}

/// Reads a shard until its end, or until told to stop; `answered` is called once it has been read,
/// or is known to be gone.
pub async fn read<S: Streams, C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    mut reader: ShardReader<S>,
    progress: &Arc<Progress>,
    answered: impl FnOnce(),
) -> End {
    let part = Part::Shard(reader.shard().clone());
    let mut answered = Some(answered);
    let mut failing = Failing::new(LONGEST_WAIT);
    loop {
        let Some(read) = shared.stop.run_until_cancelled(one(&mut reader)).await else {
            return End::Stopped;
        };
        let wait = match read {
            Ok(Read { changes, end }) => {
                shared.health.well(&part);
                if let Some(answered) = answered.take() {
                    answered();
                }
                failing.worked();
                let pause = pause(shared, changes.len());
                take_in_time(shared, changes, progress, &part).await;
                if end {
                    return finish(shared, progress).await;
                }
                pause
            }
            Err(error) => {
                if vanished(shared, reader.shard(), &error, &part, &mut failing).await {
                    shared.health.well(&part);
                    if let Some(answered) = answered.take() {
                        answered();
                    }
                    return finish(shared, progress).await;
                }
                if error.kind == StreamErrorKind::Trimmed {
                    shared.telemetry.gap(reader.shard(), &error.kind);
                    reader.restart();
                }
                failing.wait(&shared.random)
            }
        };
        if shared.stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return End::Stopped;
        }
    }
}

async fn one<S: Streams>(reader: &mut ShardReader<S>) -> Result<Read, StreamError> {
    timeout(CALL_LIMIT, reader.read())
        .await
        .unwrap_or_else(|elapsed| Err(late("dynamodb:GetRecords", elapsed)))
}

/// Tells of a failed read; `true` if the shard is no longer listed, and so has aged out unread.
async fn vanished<C, G>(
    shared: &Shared<C, G>,
    shard: &ShardId,
    error: &StreamError,
    part: &Part,
    failing: &mut Failing,
) -> bool {
    shared.telemetry.retrying(error);
    if error.kind != StreamErrorKind::NotFound {
        if let Some(trouble) = trouble::stream(&shared.stream, error, failing) {
            shared.health.troubled(part.clone(), trouble);
        }
        return false;
    }
    // A stream that is gone is told by the sweep; only a listing can say that it is the shard.
    let mut listings = shared.sweeper.subscribe();
    shared.sweeper.ask();
    let next = shared.stop.run_until_cancelled(newest(&mut listings)).await;
    let gone = next.is_some_and(|listing| !listing.has(shard));
    if gone {
        shared.telemetry.gap(shard, &error.kind);
    } else if failing.has_lasted() {
        shared.health.troubled(part.clone(), trouble::shard(shard, &shared.stream));
    }
    gone
}

/// A shard is finished once all of its records are settled.
async fn finish<C, G>(shared: &Shared<C, G>, progress: &Progress) -> End {
    match shared.stop.run_until_cancelled(progress.drained()).await {
        Some(()) => End::Finished,
        None => End::Stopped,
    }
}

/// Puts a page of changes to work, and tells if that keeps the shard from being read for long.
async fn take_in_time<C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    changes: Vec<Change>,
    progress: &Arc<Progress>,
    part: &Part,
) {
    let mut taken = pin!(take(shared, changes, progress));
    if timeout(HELD_UP, &mut taken).await.is_err() {
        shared.health.troubled(part.clone(), trouble::held_up(&shared.stream));
        taken.await;
        shared.health.well(part);
    }
}

/// Puts a page of changes to work. Lookups run side by side, messages are queued in the records'
/// order. Told to stop, it finishes the changes begun and leaves the rest unread.
async fn take<C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    changes: Vec<Change>,
    progress: &Arc<Progress>,
) {
    let mut lookups = FuturesOrdered::new();
    let mut counts = Counts::default();
    for change in changes {
        if shared.stop.is_cancelled() {
            break;
        }
        let Some((number, notification)) = judge(shared, change, progress, &mut counts) else {
            continue;
        };
        let held = loop {
            // What was found goes out while this one waits for room: that is what makes room.
            tokio::select! {
                biased;
                held = memory(shared, &notification), if lookups.len() < LOOKUPS => break held,
                Some(found) = lookups.next() => queue(shared, found).await,
            }
        };
        let ticket = progress.begin(number, held);
        lookups.push_back(find(shared, notification, ticket));
    }
    shared.telemetry.read(&counts);
    while let Some(found) = lookups.next().await {
        queue(shared, found).await;
    }
}

/// The connections that a change concerns.
struct Found {
    connections: Result<Vec<Arc<Connection>>, NotAKey>,
    body: Bytes,
    ticket: Ticket,
}

async fn find<C: Connections, G>(
    shared: &Shared<C, G>,
    notification: Notification,
    ticket: Ticket,
) -> Found {
    let connections = shared.lookup.find(&notification.lookup).await;
    Found { connections, body: notification.body, ticket }
}

async fn queue<C: Connections, G: Gateway>(shared: &Shared<C, G>, found: Found) {
    let Found { connections, body, ticket } = found;
    match connections {
        Ok(connections) => shared.deliverer.send(connections, &body, ticket).await,
        Err(not_a_key) => {
            shared.telemetry.invalid(ticket.number(), "connections.value", &not_a_key.to_string());
            ticket.settle();
        }
    }
}

/// What is to be done about a change; one that needs no work is noted as read.
fn judge<C, G>(
    shared: &Shared<C, G>,
    change: Change,
    progress: &Progress,
    counts: &mut Counts,
) -> Option<(SequenceNumber, Notification)> {
    if shared.not_before.is_some_and(|start| change.created < start) {
        counts.old += 1;
        progress.skip(change.sequence_number);
        return None;
    }
    match shared.notifier.judge(&shared.keys, &change) {
        Verdict::Notify(notification) => {
            counts.matched += 1;
            return Some((change.sequence_number, notification));
        }
        Verdict::Skip => counts.skipped += 1,
        Verdict::Invalid(invalid) => {
            let number = &change.sequence_number;
            shared.telemetry.invalid(number, &invalid.field, &invalid.problem);
        }
    }
    progress.skip(change.sequence_number);
    None
}

/// Waits for a record's share of the memory.
async fn memory<C, G>(
    shared: &Shared<C, G>,
    notification: &Notification,
) -> Option<OwnedSemaphorePermit> {
    let size = u32::try_from(notification.body.len() / 1024 + 1).unwrap_or(MEMORY).min(MEMORY);
    shared.memory.clone().acquire_many_owned(size).await.ok()
}

/// How long to leave a shard alone after a page: not at all while pages are full.
fn pause<C, G>(shared: &Shared<C, G>, records: usize) -> Duration {
    let pause = match records {
        0 => shared.poll_interval,
        FULL_PAGE.. => Duration::ZERO,
        _ => BUSY_INTERVAL,
    };
    pause.mul_f64(0.9 + shared.random.fraction() / 5.0)
}
