//! Consumes one shard to its end. The sink must accept each page before the next one is read.

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

/// A shard that waits this long before it can be read is reported as blocked.
const STALL_THRESHOLD: Duration = Duration::from_secs(60);

/// Why the task of a shard ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShardExit {
    /// The shard is closed, and all of its records are settled.
    Finished,
    /// The consumer is stopping.
    Stopped,
}

/// Next step after a failed read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ReadFailure {
    /// Read again.
    Retry,
    /// The shard no longer exists. Its unread records are lost.
    ShardTrimmed,
    /// The consumer is stopping.
    Stopped,
}

/// Consumes a shard until its end, or until the consumer stops. Calls `on_first_response` once the
/// shard was read, or is known to be trimmed.
pub async fn consume_shard(
    context: &ConsumerContext,
    mut task: ShardTask,
    on_first_response: impl FnOnce(),
) -> ShardExit {
    let component = Component::Shard(task.reader.shard().clone());
    let mut on_first_response = Some(on_first_response);
    let mut record_response = || {
        context.health.clear(&component);
        if let Some(on_first_response) = on_first_response.take() {
            on_first_response();
        }
    };
    let mut failures = FailureTracker::new(MAX_RETRY_WAIT);
    let mut poll_interval = PollInterval::new(context.config.poll_interval);
    let mut expects_records = true;
    loop {
        let Some(permit) = acquire_page_permit(context, expects_records, &component).await else {
            return ShardExit::Stopped;
        };
        let read = report_if_stalled(context, &component, task.reader.read_page());
        let Some(read) = context.stop.run_until_cancelled(read).await else {
            return ShardExit::Stopped;
        };
        let wait = match read {
            Ok(page) => {
                record_response();
                failures.record_success();
                if !record_page(context, &task, &page) {
                    return ShardExit::Stopped;
                }
                let stats = page_stats(context, task.reader.shard(), &page);
                expects_records = stats.records > 0;
                let Some(permit) =
                    ensure_page_permit(context, permit, expects_records, &component).await
                else {
                    return ShardExit::Stopped;
                };
                let outcome = deliver_page(context, &task, page.records, permit, &component).await;
                if outcome == BatchOutcome::Stopped {
                    return ShardExit::Stopped;
                }
                if page.is_last {
                    return finish_shard(context, &task.progress, &component).await;
                }
                poll_wait(context, &mut poll_interval, stats)
            }
            Err(error) => {
                drop(permit);
                // Many records can arrive until the read succeeds, even in an idle shard.
                expects_records = true;
                match handle_failure(context, &mut task, &error, &component, &mut failures).await {
                    ReadFailure::Retry => failures.next_wait(&context.rng),
                    ReadFailure::ShardTrimmed => {
                        record_response();
                        return finish_shard(context, &task.progress, &component).await;
                    }
                    ReadFailure::Stopped => return ShardExit::Stopped,
                }
            }
        };
        // A timer takes a millisecond even if there is nothing to wait for.
        if !wait.is_zero() && context.stop.run_until_cancelled(sleep(wait)).await.is_none() {
            return ShardExit::Stopped;
        }
    }
}

/// Passes the records of a page to the sink. Releases the page permit once the sink has queued the
/// messages, because the waits that follow hold no page.
async fn deliver_page(
    context: &ConsumerContext,
    task: &ShardTask,
    records: Vec<Record>,
    permit: Option<SemaphorePermit<'_>>,
    component: &Component,
) -> BatchOutcome {
    let batch = RecordBatch {
        shard: task.reader.shard().clone(),
        keys: task.keys.clone(),
        records,
        progress: task.progress.clone(),
    };
    let outcome = report_if_stalled(context, component, context.sink.process(batch)).await;
    drop(permit);
    outcome
}

/// How long to wait before the next poll, with jitter.
fn poll_wait(
    context: &ConsumerContext,
    poll_interval: &mut PollInterval,
    stats: PageStats,
) -> Duration {
    let now = Instant::now();
    let wait = poll_interval.next_wait(stats, now);
    let jittered = wait.mul_f64(1.0 + context.rng.fraction() / 10.0);
    if wait < context.config.poll_interval {
        jittered
    } else {
        context.poll_coalescer.coalesce(jittered, now)
    }
}

/// Records that a page was read, and reports a gap before it. Before the first record there is no
/// sequence number by which the service could detect trimmed records. Only the time without a read
/// shows the gap. Returns whether the consumer continues.
fn record_page(context: &ConsumerContext, task: &ShardTask, page: &ShardPage) -> bool {
    let ShardTask { reader, progress, .. } = task;
    let now = context.clock.now();
    if !reader.had_sequence_number()
        && let Some(lost) = gap_seconds(progress.read_at(), now)
    {
        let cause = "shard was not read for more than 24 hours";
        if !report_gap(context, reader.shard(), cause, lost) {
            return false;
        }
        progress.mark_read_until(safe_horizon(now));
    }
    progress.record_page(page.records.last().map(|last| last.approximate_creation_time), now);
    if page.malformed > 0 {
        context.telemetry.malformed_records(reader.shard(), page.malformed);
    }
    true
}

fn report_gap(context: &ConsumerContext, shard: &ShardId, cause: &'static str, lost: u64) -> bool {
    context.report_gap(&shard.stream, Some(shard), cause, lost)
}

fn page_stats(context: &ConsumerContext, shard: &ShardId, page: &ShardPage) -> PageStats {
    let age =
        |record: &Record| context.clock.now().0.saturating_sub(record.approximate_creation_time.0);
    PageStats {
        records: page.records.len(),
        age: page.records.last().map(age),
        is_closed: context.lister.latest().is_closed(shard),
    }
}

/// Reports a failed read, and decides the next step.
async fn handle_failure(
    context: &ConsumerContext,
    task: &mut ShardTask,
    error: &StreamError,
    component: &Component,
    failures: &mut FailureTracker,
) -> ReadFailure {
    context.telemetry.request_failed(error);
    let shard = task.reader.shard();
    if error.kind == StreamErrorKind::NotFound {
        return handle_not_found(context, task, component, failures).await;
    }
    let stream = shard.stream.arn(&context.config.table);
    if let Some(problem) = problems::request_failed(&stream, error, failures) {
        context.health.set_problem(component.clone(), problem);
    }
    if error.kind == StreamErrorKind::Trimmed {
        if !fault!(DataGapNotReported)
            && let Some(lost) = lost_seconds(context, task)
            && !report_gap(context, shard, "records were trimmed before they were read", lost)
        {
            return ReadFailure::Stopped;
        }
        // Records that are left can also be trimmed before they are read.
        task.progress.mark_read_until(safe_horizon(context.clock.now()));
        task.reader.restart_at_trim_horizon();
    }
    ReadFailure::Retry
}

/// Decides the next step for a shard that the service does not find. A listing must confirm that
/// the shard is trimmed. If the shard is too young to be trimmed, several listings must. A listing
/// also shows that the whole stream was deleted.
async fn handle_not_found(
    context: &ConsumerContext,
    task: &ShardTask,
    component: &Component,
    failures: &mut FailureTracker,
) -> ReadFailure {
    let shard = task.reader.shard();
    let Some(listing) = context.stop.run_until_cancelled(context.lister.refresh()).await else {
        return ReadFailure::Stopped;
    };
    let is_stream_deleted =
        listing.streams.get(&shard.stream).is_some_and(StreamDescription::is_deleted);
    let may_be_trimmed = may_be_trimmed(shard, context.clock.now());
    let lost = lost_seconds(context, task);
    let (cause, lost) = if is_stream_deleted {
        // None of its records are left, even if the shard was read until just now.
        ("stream was deleted", lost.or(Some(1)))
    } else if listing.has(shard) {
        if failures.record_failure() {
            let problem = problems::shard_not_found(shard, &context.config.table);
            context.health.set_problem(component.clone(), problem);
        }
        return ReadFailure::Retry;
    } else if may_be_trimmed && lost.is_some() {
        ("shard was trimmed", lost)
    } else if failures.record_failure() {
        // Repeated listings confirmed it. A shard younger than 24 hours is lost although the stream
        // should keep it.
        ("shard was trimmed", lost.or((!may_be_trimmed).then_some(1)))
    } else {
        return ReadFailure::Retry;
    };
    match lost.is_none_or(|lost| report_gap(context, shard, cause, lost)) {
        true => ReadFailure::ShardTrimmed,
        false => ReadFailure::Stopped,
    }
}

/// Seconds of unread records that are lost in a trimmed shard. Returns `None` if no requested
/// record is lost. Without a sequence number, only records older than 24 hours can be trimmed, and
/// none of them were unread if the shard was read since.
fn lost_seconds(context: &ConsumerContext, task: &ShardTask) -> Option<u64> {
    let now = context.clock.now();
    match task.reader.has_sequence_number() {
        true => gap_seconds(task.progress.read_through(), now).or(Some(1)),
        false => gap_seconds(task.progress.read_at(), now),
    }
}

/// Waits until all records of a shard are settled, which finishes the shard.
async fn finish_shard(
    context: &ConsumerContext,
    progress: &ShardProgress,
    component: &Component,
) -> ShardExit {
    let idle = report_if_stalled(context, component, progress.wait_idle());
    match context.stop.run_until_cancelled(idle).await {
        Some(()) => ShardExit::Finished,
        None => ShardExit::Stopped,
    }
}

/// Waits for a page permit if records are expected. The inner `Option` is `None` without one,
/// because a poll that finds nothing needs none. The outer `Option` is `None` if the consumer is
/// stopping.
async fn acquire_page_permit<'a>(
    context: &'a ConsumerContext,
    is_needed: bool,
    component: &Component,
) -> Option<Option<SemaphorePermit<'a>>> {
    if !is_needed {
        return Some(None);
    }
    let acquired = report_if_stalled(context, component, context.page_permits.acquire());
    // The semaphore is never closed, so `ok` discards no error.
    context.stop.run_until_cancelled(acquired).await.map(Result::ok)
}

/// Returns the permit that was acquired before the read. Acquires one if there is none, but the
/// page unexpectedly has records.
async fn ensure_page_permit<'a>(
    context: &'a ConsumerContext,
    permit: Option<SemaphorePermit<'a>>,
    is_needed: bool,
    component: &Component,
) -> Option<Option<SemaphorePermit<'a>>> {
    match permit {
        Some(permit) => Some(Some(permit)),
        None => acquire_page_permit(context, is_needed, component).await,
    }
}

/// Waits for a future that the shard cannot be read without. Reports the shard as blocked after 60
/// s, until the future is ready.
async fn report_if_stalled<T>(
    context: &ConsumerContext,
    component: &Component,
    future: impl Future<Output = T>,
) -> T {
    let mut future = pin!(future);
    if let Ok(output) = timeout(STALL_THRESHOLD, &mut future).await {
        return output;
    }
    let problem = problems::shard_blocked(&context.config.table);
    context.health.set_problem(component.clone(), problem);
    let output = future.await;
    context.health.clear(component);
    output
}
