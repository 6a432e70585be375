//! Reads one shard to its end, page by page, each put to work before the next.

use std::pin::pin;
use std::time::Duration;

use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, sleep, timeout};

use super::context::{ConsumerContext, ShardTask};
use super::listing::StreamDescription;
use super::poll_interval::{PageStats, PollInterval};
use super::problems;
use super::problems::MAX_RETRY_WAIT;
use super::retention::{gap_seconds, may_be_trimmed, safe_horizon};
use super::shard_reader::ShardPage;
use crate::checkpoint::ShardProgress;
use crate::model::{BatchOutcome, Record, RecordBatch, ShardId};
use crate::streams::service::error::{StreamError, StreamErrorKind};
use crate::telemetry::Component;
use crate::timing::FailureTracker;

/// A shard that could not be read for so long, because something waits, is not Ready.
const STALL_THRESHOLD: Duration = Duration::from_secs(60);

/// How reading a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardExit {
    /// Everything it has is settled.
    Finished,
    /// It was told to stop.
    Stopped,
}

/// Reads a shard until its end, or until told to stop; `answered` is called once it has been read,
/// or is known to be gone.
pub async fn consume_shard(
    shared: &ConsumerContext,
    mut task: ShardTask,
    answered: impl FnOnce(),
) -> ShardExit {
    let part = Component::Shard(task.reader.shard().clone());
    let mut answered = Some(answered);
    let mut answer = || {
        shared.health.clear(&part);
        if let Some(answered) = answered.take() {
            answered();
        }
    };
    let mut failing = FailureTracker::new(MAX_RETRY_WAIT);
    let mut pace = PollInterval::new(shared.config.poll_interval);
    let mut expects_records = true;
    loop {
        let Some(place) = acquire_page_permit(shared, expects_records, &part).await else {
            return ShardExit::Stopped;
        };
        let read = report_if_stalled(shared, &part, task.reader.read_page());
        let Some(read) = shared.stop.run_until_cancelled(read).await else {
            return ShardExit::Stopped;
        };
        let wait = match read {
            Ok(read) => {
                answer();
                failing.record_success();
                if !record_page(shared, &task, &read) {
                    return ShardExit::Stopped;
                }
                let seen = page_stats(shared, task.reader.shard(), &read);
                expects_records = seen.records > 0;
                let Some(place) = ensure_page_permit(shared, place, expects_records, &part).await
                else {
                    return ShardExit::Stopped;
                };
                let batch = RecordBatch {
                    shard: task.reader.shard().clone(),
                    keys: task.keys.clone(),
                    records: read.records,
                    progress: task.progress.clone(),
                };
                let outcome = report_if_stalled(shared, &part, shared.sink.process(batch)).await;
                // The rest is waiting, which needs no page.
                drop(place);
                if outcome == BatchOutcome::Stopped {
                    return ShardExit::Stopped;
                }
                if read.is_last {
                    return finish_shard(shared, &task.progress, &part).await;
                }
                let now = Instant::now();
                let pause = pace.next_wait(seen, now);
                let jittered = pause.mul_f64(1.0 + shared.rng.fraction() / 10.0);
                if pause < shared.config.poll_interval {
                    jittered
                } else {
                    shared.poll_coalescer.join(jittered, now)
                }
            }
            Err(error) => {
                drop(place);
                // However few there were before: by the time that it works, there may be many.
                expects_records = true;
                match handle_failure(shared, &mut task, &error, &part, &mut failing).await {
                    ReadFailure::Retry => failing.next_wait(&shared.rng),
                    ReadFailure::ShardTrimmed => {
                        answer();
                        return finish_shard(shared, &task.progress, &part).await;
                    }
                    ReadFailure::Stopped => return ShardExit::Stopped,
                }
            }
        };
        // A timer takes a millisecond even where there is nothing to wait for.
        if !wait.is_zero() && shared.stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return ShardExit::Stopped;
        }
    }
}

/// Notes that a page was read. Until the first record there is no number by which the service could
/// tell that records are gone, only the time that nobody looked; `false` if that stops everything.
fn record_page(shared: &ConsumerContext, task: &ShardTask, page: &ShardPage) -> bool {
    let ShardTask { reader, progress, .. } = task;
    let now = shared.clock.now();
    if !reader.had_sequence_number()
        && let Some(lost) = gap_seconds(progress.read_at(), now)
    {
        if !report_gap(shared, reader.shard(), "it was not read for more than 24 hours", lost) {
            return false;
        }
        progress.mark_read_until(safe_horizon(now));
    }
    progress.record_page(page.records.last().map(|last| last.approximate_creation_time), now);
    if page.malformed > 0 {
        shared.telemetry.malformed_records(reader.shard(), page.malformed);
    }
    true
}

fn report_gap(shared: &ConsumerContext, shard: &ShardId, why: &'static str, lost: u64) -> bool {
    shared.report_gap(&shard.stream, Some(shard), why, lost)
}

fn page_stats(shared: &ConsumerContext, shard: &ShardId, page: &ShardPage) -> PageStats {
    let age =
        |change: &Record| shared.clock.now().0.saturating_sub(change.approximate_creation_time.0);
    PageStats {
        records: page.records.len(),
        age: page.records.last().map(age),
        is_closed: shared.lister.latest().is_closed(shard),
    }
}

/// What a failed read leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadFailure {
    /// It is tried again.
    Retry,
    /// The shard is no more, and what it had is lost.
    ShardTrimmed,
    /// Nothing more is read.
    Stopped,
}

/// Tells of a failed read, and finds out what it leads to.
async fn handle_failure(
    shared: &ConsumerContext,
    task: &mut ShardTask,
    error: &StreamError,
    part: &Component,
    failing: &mut FailureTracker,
) -> ReadFailure {
    shared.telemetry.retry(error);
    let shard = task.reader.shard();
    if error.kind == StreamErrorKind::NotFound {
        return handle_not_found(shared, task, part, failing).await;
    }
    let stream = shard.stream.arn(&shared.config.table);
    if let Some(trouble) = problems::request_failed(&stream, error, failing) {
        shared.health.set_problem(part.clone(), trouble);
    }
    if error.kind == StreamErrorKind::Trimmed {
        if !fault!(DataGapNotReported)
            && let Some(lost) = lost_seconds_of(shared, task)
            && !report_gap(shared, shard, "its records were trimmed", lost)
        {
            return ReadFailure::Stopped;
        }
        // All that is left may still be lost before it is read.
        task.progress.mark_read_until(safe_horizon(shared.clock.now()));
        task.reader.restart_at_trim_horizon();
    }
    ReadFailure::Retry
}

/// Finds out what it leads to that a shard is not found. A stream that is gone is told by the sweep;
/// only a listing can say that it is the shard, and of one that cannot be gone yet only several.
async fn handle_not_found(
    shared: &ConsumerContext,
    task: &ShardTask,
    part: &Component,
    failing: &mut FailureTracker,
) -> ReadFailure {
    let shard = task.reader.shard();
    let Some(next) = shared.stop.run_until_cancelled(shared.lister.refresh()).await else {
        return ReadFailure::Stopped;
    };
    let is_stream_gone = next.streams.get(&shard.stream).is_some_and(StreamDescription::is_trimmed);
    let may_be_gone = may_be_trimmed(shard, shared.clock.now());
    let lost = lost_seconds_of(shared, task);
    let (why, lost) = if is_stream_gone {
        // Nothing of it is left, however little that was.
        ("its stream is gone", lost.or(Some(1)))
    } else if next.has(shard) {
        if failing.record_failure() {
            shared
                .health
                .set_problem(part.clone(), problems::shard_not_found(shard, &shared.config.table));
        }
        return ReadFailure::Retry;
    } else if may_be_gone && lost.is_some() {
        ("it is gone", lost)
    } else if failing.record_failure() {
        // It was made sure of. What is younger than a day is lost then although it was kept.
        ("it is gone", lost.or((!may_be_gone).then_some(1)))
    } else {
        return ReadFailure::Retry;
    };
    match lost.is_none_or(|lost| report_gap(shared, shard, why, lost)) {
        true => ReadFailure::ShardTrimmed,
        false => ReadFailure::Stopped,
    }
}

/// For how many seconds records of a shard are gone that was trimmed, or is; `None` if none were asked
/// for. Without a number only what is older than a day can be gone, and nothing of that where somebody
/// has looked since.
fn lost_seconds_of(shared: &ConsumerContext, task: &ShardTask) -> Option<u64> {
    let now = shared.clock.now();
    match task.reader.has_sequence_number() {
        true => gap_seconds(task.progress.read_through(), now).or(Some(1)),
        false => gap_seconds(task.progress.read_at(), now),
    }
}

/// A shard is finished once all of its records are settled.
async fn finish_shard(
    shared: &ConsumerContext,
    progress: &ShardProgress,
    part: &Component,
) -> ShardExit {
    let drained = report_if_stalled(shared, part, progress.wait_idle());
    match shared.stop.run_until_cancelled(drained).await {
        Some(()) => ShardExit::Finished,
        None => ShardExit::Stopped,
    }
}

/// A place among the pages that are looked at, if records are expected: a poll that finds nothing
/// needs none. `None` if all is to stop.
async fn acquire_page_permit<'a>(
    shared: &'a ConsumerContext,
    is_needed: bool,
    part: &Component,
) -> Option<Option<SemaphorePermit<'a>>> {
    if !is_needed {
        return Some(None);
    }
    let acquired = report_if_stalled(shared, part, shared.page_permits.acquire());
    // Never closed, so that it is always given.
    shared.stop.run_until_cancelled(acquired).await.map(Result::ok)
}

/// The place that was taken before, or one now if there are records all the same.
async fn ensure_page_permit<'a>(
    shared: &'a ConsumerContext,
    taken: Option<SemaphorePermit<'a>>,
    is_needed: bool,
    part: &Component,
) -> Option<Option<SemaphorePermit<'a>>> {
    match taken {
        Some(taken) => Some(Some(taken)),
        None => acquire_page_permit(shared, is_needed, part).await,
    }
}

/// Waits for something that keeps the shard from being read, and tells if that takes long.
async fn report_if_stalled<T>(
    shared: &ConsumerContext,
    part: &Component,
    what: impl Future<Output = T>,
) -> T {
    let mut what = pin!(what);
    if let Ok(done) = timeout(STALL_THRESHOLD, &mut what).await {
        return done;
    }
    shared.health.set_problem(part.clone(), problems::shard_blocked(&shared.config.table));
    let done = what.await;
    shared.health.clear(part);
    done
}
