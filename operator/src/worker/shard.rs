//! Reads one shard to its end and puts every matching change to work, in order.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::calls::Calls;
use super::pace::{Pace, Seen};
use super::progress::Progress;
use super::retention::{OnGap, ServiceClock, lost_seconds};
use super::sweep::{Sweep, Sweeper};
use super::trouble::{self, LONGEST_WAIT};
use crate::backoff::{Failing, Random};
use crate::delivery::{
    Bounds, Connection, Connections, Deliverer, Gateway, Lookup, NotAKey, Ticket,
};
use crate::notifier::{Notification, Notifier, Verdict};
use crate::record::{Change, KeyNames, SequenceNumber, ShardId, StreamLabel, UnixSeconds};
use crate::stream::{Follow, Read, ShardReader, StreamError, StreamErrorKind, Streams};
use crate::telemetry::{Counts, Health, NotifierTelemetry, Part};

/// A shard that could not be read for so long, because its records wait, is not Ready.
const HELD_UP: Duration = Duration::from_secs(60);

/// Lookups of one shard under way at once.
const LOOKUPS: usize = 16;

/// What all shards of a notifier share.
#[derive(Debug)]
pub struct Shared<C, G> {
    pub notifier: Arc<Notifier>,
    pub not_before: Option<UnixSeconds>,
    pub lookup: Arc<Lookup<C>>,
    pub deliverer: Arc<Deliverer<C, G>>,
    pub bounds: Bounds,
    pub memory: Arc<Semaphore>,
    pub poll_interval: Duration,
    pub table: String,
    /// What is read, as conditions name it.
    pub stream: String,
    pub follow: Follow,
    pub on_gap: OnGap,
    pub clock: ServiceClock,
    pub sweeper: Sweeper,
    pub health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    pub random: Arc<Random>,
    pub stop: CancellationToken,
    /// Whether it was a gap that stopped everything.
    pub halted: AtomicBool,
}

impl<C, G> Shared<C, G> {
    /// Lists the shards for ever, for all who look at the sweeper.
    pub async fn sweep<S: Streams>(&self, streams: &Calls<S>) -> Infallible {
        let Self { follow, stream, health, telemetry, random, .. } = self;
        self.sweeper.run(Sweep { streams, follow, stream, health, telemetry, random }).await
    }

    /// Tells that records of a shard, or of any, were lost before they were read, and for how many
    /// seconds; `true` if reading goes on.
    pub fn gap(
        &self,
        stream: &StreamLabel,
        shard: Option<&ShardId>,
        why: &'static str,
        lost: u64,
    ) -> bool {
        self.telemetry.gap(stream, shard, why, lost);
        self.health.gap(trouble::gap(&stream.arn(&self.table), self.on_gap));
        match self.on_gap {
            OnGap::Continue => true,
            OnGap::Stop => {
                self.halted.store(true, Ordering::Relaxed);
                self.stop.cancel();
                false
            }
        }
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

/// One shard to read.
#[derive(Debug)]
pub struct Task<S> {
    /// Where reading stands.
    pub reader: ShardReader<S>,
    /// The key attributes of its stream's records.
    pub keys: KeyNames,
    /// What is settled.
    pub progress: Arc<Progress>,
}

/// Reads a shard until its end, or until told to stop; `answered` is called once it has been read,
/// or is known to be gone.
pub async fn read<S: Streams, C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    mut task: Task<S>,
    answered: impl FnOnce(),
) -> End {
    let part = Part::Shard(task.reader.shard().clone());
    let mut answered = Some(answered);
    let mut answer = || {
        shared.health.well(&part);
        if let Some(answered) = answered.take() {
            answered();
        }
    };
    let mut failing = Failing::new(LONGEST_WAIT);
    let mut pace = Pace::new(shared.poll_interval);
    loop {
        let Some(read) = shared.stop.run_until_cancelled(task.reader.read()).await else {
            return End::Stopped;
        };
        let wait = match read {
            Ok(page) => {
                answer();
                failing.worked();
                if !note_read(shared, &task, &page) {
                    return End::Stopped;
                }
                let seen = seen(shared, task.reader.shard(), &page);
                take_in_time(shared, page.changes, &task, &part).await;
                if page.end {
                    return finish(shared, &task.progress).await;
                }
                let pause = pace.after(seen, Instant::now());
                pause.mul_f64(1.0 + shared.random.fraction() / 10.0)
            }
            Err(error) => match failed(shared, &mut task, &error, &part, &mut failing).await {
                Failed::Again => failing.wait(&shared.random),
                Failed::Gone => {
                    answer();
                    return finish(shared, &task.progress).await;
                }
                Failed::Stopped => return End::Stopped,
            },
        };
        if shared.stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return End::Stopped;
        }
    }
}

/// Notes that a page was read. Until the first record there is no number by which the service could
/// tell that records are gone, only the time that nobody looked; `false` if that stops everything.
fn note_read<S: Streams, C, G>(shared: &Shared<C, G>, task: &Task<S>, page: &Read) -> bool {
    let Task { reader, progress, .. } = task;
    let now = shared.clock.now();
    if !reader.had_number()
        && let Some(lost) = lost_seconds(progress.read_at(), now)
        && !gap(shared, reader.shard(), "it was not read for more than 24 hours", lost)
    {
        return false;
    }
    if page.changes.is_empty() {
        progress.found_nothing(now);
    }
    if page.unreadable > 0 {
        shared.telemetry.unreadable(reader.shard(), page.unreadable);
    }
    true
}

fn gap<C, G>(shared: &Shared<C, G>, shard: &ShardId, why: &'static str, lost: u64) -> bool {
    shared.gap(&shard.stream, Some(shard), why, lost)
}

fn seen<C, G>(shared: &Shared<C, G>, shard: &ShardId, page: &Read) -> Seen {
    let age = |change: &Change| shared.clock.now().0.saturating_sub(change.created.0);
    Seen {
        records: page.changes.len(),
        age: page.changes.last().map(age),
        is_closed: shared.sweeper.newest().is_closed(shard),
    }
}

/// What a failed read leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failed {
    /// It is tried again.
    Again,
    /// The shard is no more, and what it had is lost.
    Gone,
    /// Nothing more is read.
    Stopped,
}

/// Tells of a failed read, and finds out what it leads to.
async fn failed<S: Streams, C, G>(
    shared: &Shared<C, G>,
    task: &mut Task<S>,
    error: &StreamError,
    part: &Part,
    failing: &mut Failing,
) -> Failed {
    shared.telemetry.retrying(error);
    let shard = task.reader.shard();
    let lost = || lost_seconds(task.progress.read_at(), shared.clock.now()).unwrap_or(1);
    match error.kind {
        StreamErrorKind::Trimmed => {
            if !gap(shared, shard, "its records were trimmed", lost()) {
                return Failed::Stopped;
            }
            // From here on it is known how long nobody looked.
            task.progress.begins_anew(shared.clock.now());
            task.reader.restart();
        }
        StreamErrorKind::NotFound => match is_listed(shared, shard).await {
            Some(true) if failing.has_lasted() => {
                let trouble = trouble::shard(shard, &shared.table);
                shared.health.troubled(part.clone(), trouble);
            }
            Some(true) => {}
            Some(false) if gap(shared, shard, "it is gone", lost()) => return Failed::Gone,
            Some(false) | None => return Failed::Stopped,
        },
        _ => {
            let stream = shard.stream.arn(&shared.table);
            if let Some(trouble) = trouble::stream(&stream, error, failing) {
                shared.health.troubled(part.clone(), trouble);
            }
        }
    }
    Failed::Again
}

/// Whether a shard that was not found is in the next listing; `None` if all is to stop. A stream
/// that is gone is told by the sweep; only a listing can say that it is the shard.
async fn is_listed<C, G>(shared: &Shared<C, G>, shard: &ShardId) -> Option<bool> {
    let next = shared.stop.run_until_cancelled(shared.sweeper.next()).await?;
    Some(next.has(shard))
}

/// A shard is finished once all of its records are settled.
async fn finish<C, G>(shared: &Shared<C, G>, progress: &Progress) -> End {
    match shared.stop.run_until_cancelled(progress.drained()).await {
        Some(()) => End::Finished,
        None => End::Stopped,
    }
}

/// Puts a page of changes to work, and tells if that keeps the shard from being read for long.
async fn take_in_time<S, C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    changes: Vec<Change>,
    task: &Task<S>,
    part: &Part,
) {
    let mut taken = pin!(take(shared, changes, task));
    if timeout(HELD_UP, &mut taken).await.is_err() {
        shared.health.troubled(part.clone(), trouble::held_up(&shared.table));
        taken.await;
        shared.health.well(part);
    }
}

/// Puts a page of changes to work. Lookups run side by side, messages are queued in the records'
/// order. Told to stop, it finishes the changes begun and leaves the rest unread.
async fn take<S, C: Connections, G: Gateway>(
    shared: &Shared<C, G>,
    changes: Vec<Change>,
    task: &Task<S>,
) {
    let mut lookups = FuturesOrdered::new();
    let mut counts = Counts::default();
    for change in changes {
        if shared.stop.is_cancelled() {
            break;
        }
        let Some((number, notification)) = judge(shared, change, task, &mut counts) else {
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
        let ticket = task.progress.begin(number, held);
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
fn judge<S, C, G>(
    shared: &Shared<C, G>,
    change: Change,
    task: &Task<S>,
    counts: &mut Counts,
) -> Option<(SequenceNumber, Notification)> {
    let Task { keys, progress, .. } = task;
    if shared.not_before.is_some_and(|start| change.created < start) {
        counts.old += 1;
        progress.skip(change.sequence_number);
        return None;
    }
    match shared.notifier.judge(keys, &change) {
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
    let most = shared.bounds.memory_kib;
    let size = u32::try_from(notification.body.len() / 1024 + 1).unwrap_or(most).min(most);
    shared.memory.clone().acquire_many_owned(size).await.ok()
}
