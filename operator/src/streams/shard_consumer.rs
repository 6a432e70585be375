//! Reads one shard to its end, page by page, each put to work before the next.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout};

use super::context::{ConsumerContext, ShardTask};
use super::listing::Described;
use super::poll_interval::{Pace, Seen};
use super::problems;
use super::problems::LONGEST_WAIT;
use super::retention::{horizon, lost_seconds, may_be_gone};
use super::shard_reader::Read;
use crate::checkpoint::Progress;
use crate::model::{BatchOutcome, Change, RecordBatch, ShardId};
use crate::streams::service::error::{StreamError, StreamErrorKind};
use crate::telemetry::Part;
use crate::timing::Failing;

/// A shard that could not be read for so long, because something waits, is not Ready.
const HELD_UP: Duration = Duration::from_secs(60);

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
pub async fn read(shared: &ConsumerContext, mut task: ShardTask, answered: impl FnOnce()) -> End {
    let part = Part::Shard(task.reader.shard().clone());
    let mut answered = Some(answered);
    let mut answer = || {
        shared.health.well(&part);
        if let Some(answered) = answered.take() {
            answered();
        }
    };
    let mut failing = Failing::new(LONGEST_WAIT);
    let mut pace = Pace::new(shared.config.poll_interval);
    let mut expects_records = true;
    loop {
        let Some(place) = place(shared, expects_records, &part).await else {
            return End::Stopped;
        };
        let read = in_time(shared, &part, task.reader.read());
        let Some(read) = shared.stop.run_until_cancelled(read).await else {
            return End::Stopped;
        };
        let wait = match read {
            Ok(read) => {
                answer();
                failing.worked();
                if !note_read(shared, &task, &read) {
                    return End::Stopped;
                }
                let seen = seen(shared, task.reader.shard(), &read);
                expects_records = seen.records > 0;
                let Some(place) = place_for(shared, place, expects_records, &part).await else {
                    return End::Stopped;
                };
                let batch = RecordBatch {
                    shard: task.reader.shard().clone(),
                    keys: task.keys.clone(),
                    records: read.changes,
                    progress: task.progress.clone(),
                };
                let outcome = in_time(shared, &part, shared.sink.process(batch)).await;
                // The rest is waiting, which needs no page.
                drop(place);
                if outcome == BatchOutcome::Stopped {
                    return End::Stopped;
                }
                if read.end {
                    return finish(shared, &task.progress, &part).await;
                }
                let now = Instant::now();
                let pause = pace.after(seen, now);
                let jittered = pause.mul_f64(1.0 + shared.random.fraction() / 10.0);
                if pause < shared.config.poll_interval {
                    jittered
                } else {
                    shared.beat.join(jittered, now)
                }
            }
            Err(error) => {
                drop(place);
                // However few there were before: by the time that it works, there may be many.
                expects_records = true;
                match failed(shared, &mut task, &error, &part, &mut failing).await {
                    Failed::Again => failing.wait(&shared.random),
                    Failed::Gone => {
                        answer();
                        return finish(shared, &task.progress, &part).await;
                    }
                    Failed::Stopped => return End::Stopped,
                }
            }
        };
        // A timer takes a millisecond even where there is nothing to wait for.
        if !wait.is_zero() && shared.stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return End::Stopped;
        }
    }
}

/// Notes that a page was read. Until the first record there is no number by which the service could
/// tell that records are gone, only the time that nobody looked; `false` if that stops everything.
fn note_read(shared: &ConsumerContext, task: &ShardTask, page: &Read) -> bool {
    let ShardTask { reader, progress, .. } = task;
    let now = shared.clock.now();
    if !reader.had_number()
        && let Some(lost) = lost_seconds(progress.read_at(), now)
    {
        if !gap(shared, reader.shard(), "it was not read for more than 24 hours", lost) {
            return false;
        }
        progress.read_until(horizon(now));
    }
    progress.answered(page.changes.last().map(|last| last.created), now);
    if page.unreadable > 0 {
        shared.telemetry.unreadable(reader.shard(), page.unreadable);
    }
    true
}

fn gap(shared: &ConsumerContext, shard: &ShardId, why: &'static str, lost: u64) -> bool {
    shared.report_gap(&shard.stream, Some(shard), why, lost)
}

fn seen(shared: &ConsumerContext, shard: &ShardId, page: &Read) -> Seen {
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
async fn failed(
    shared: &ConsumerContext,
    task: &mut ShardTask,
    error: &StreamError,
    part: &Part,
    failing: &mut Failing,
) -> Failed {
    shared.telemetry.retrying(error);
    let shard = task.reader.shard();
    if error.kind == StreamErrorKind::NotFound {
        return not_found(shared, task, part, failing).await;
    }
    let stream = shard.stream.arn(&shared.config.table);
    if let Some(trouble) = problems::stream(&stream, error, failing) {
        shared.health.troubled(part.clone(), trouble);
    }
    if error.kind == StreamErrorKind::Trimmed {
        if !fault!(DataGapNotReported)
            && let Some(lost) = lost(shared, task)
            && !gap(shared, shard, "its records were trimmed", lost)
        {
            return Failed::Stopped;
        }
        // All that is left may still be lost before it is read.
        task.progress.read_until(horizon(shared.clock.now()));
        task.reader.restart();
    }
    Failed::Again
}

/// Finds out what it leads to that a shard is not found. A stream that is gone is told by the sweep;
/// only a listing can say that it is the shard, and of one that cannot be gone yet only several.
async fn not_found(
    shared: &ConsumerContext,
    task: &ShardTask,
    part: &Part,
    failing: &mut Failing,
) -> Failed {
    let shard = task.reader.shard();
    let Some(next) = shared.stop.run_until_cancelled(shared.sweeper.next()).await else {
        return Failed::Stopped;
    };
    let is_stream_gone = next.streams.get(&shard.stream).is_some_and(Described::is_gone);
    let may_be_gone = may_be_gone(shard, shared.clock.now());
    let lost = lost(shared, task);
    let (why, lost) = if is_stream_gone {
        // Nothing of it is left, however little that was.
        ("its stream is gone", lost.or(Some(1)))
    } else if next.has(shard) {
        if failing.has_lasted() {
            shared.health.troubled(part.clone(), problems::shard(shard, &shared.config.table));
        }
        return Failed::Again;
    } else if may_be_gone && lost.is_some() {
        ("it is gone", lost)
    } else if failing.has_lasted() {
        // It was made sure of. What is younger than a day is lost then although it was kept.
        ("it is gone", lost.or((!may_be_gone).then_some(1)))
    } else {
        return Failed::Again;
    };
    match lost.is_none_or(|lost| gap(shared, shard, why, lost)) {
        true => Failed::Gone,
        false => Failed::Stopped,
    }
}

/// For how many seconds records of a shard are gone that was trimmed, or is; `None` if none were asked
/// for. Without a number only what is older than a day can be gone, and nothing of that where somebody
/// has looked since.
fn lost(shared: &ConsumerContext, task: &ShardTask) -> Option<u64> {
    let now = shared.clock.now();
    match task.reader.is_numbered() {
        true => lost_seconds(task.progress.read_through(), now).or(Some(1)),
        false => lost_seconds(task.progress.read_at(), now),
    }
}

/// A shard is finished once all of its records are settled.
async fn finish(shared: &ConsumerContext, progress: &Progress, part: &Part) -> End {
    let drained = in_time(shared, part, progress.drained());
    match shared.stop.run_until_cancelled(drained).await {
        Some(()) => End::Finished,
        None => End::Stopped,
    }
}

/// A place among the pages that are looked at, if records are expected: a poll that finds nothing
/// needs none. `None` if all is to stop.
async fn place<'a>(
    shared: &'a ConsumerContext,
    is_needed: bool,
    part: &Part,
) -> Option<Option<SemaphorePermit<'a>>> {
    if !is_needed {
        return Some(None);
    }
    let acquired = in_time(shared, part, shared.pages.acquire());
    // Never closed, so that it is always given.
    shared.stop.run_until_cancelled(acquired).await.map(Result::ok)
}

/// The place that was taken before, or one now if there are records all the same.
async fn place_for<'a>(
    shared: &'a ConsumerContext,
    taken: Option<SemaphorePermit<'a>>,
    is_needed: bool,
    part: &Part,
) -> Option<Option<SemaphorePermit<'a>>> {
    match taken {
        Some(taken) => Some(Some(taken)),
        None => place(shared, is_needed, part).await,
    }
}

/// Waits for something that keeps the shard from being read, and tells if that takes long.
async fn in_time<T>(shared: &ConsumerContext, part: &Part, what: impl Future<Output = T>) -> T {
    let mut what = pin!(what);
    if let Ok(done) = timeout(HELD_UP, &mut what).await {
        return done;
    }
    shared.health.troubled(part.clone(), problems::held_up(&shared.config.table));
    let done = what.await;
    shared.health.well(part);
    done
}
