//! One notifier at work: claims its checkpoint, reads every shard, and hands each matching change to
//! the delivery; what is settled, and nothing else, is remembered.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backends::Backends;
use super::startup::{claim_checkpoint, refresh_listing};
use crate::checkpoint::{
    Checkpoint, CheckpointWriter, ClaimError, Positions, checkpoint_problem, run_checkpoint_loop,
    write_final_checkpoint,
};
use crate::delivery::{
    DeadLetterSender, DeadLetterSource as LetterFrom, Dispatcher, DispatcherConfig, Lookup,
    Pipeline, TaskGroup,
};
use crate::model::UnixSeconds;
use crate::rules::PageEvaluator;
use crate::streams::{ConsumerStart, Listing, RateLimitedStreams, StreamConsumer};
use crate::telemetry::Component;
use crate::timing::Backoff;
use crate::worker::config::worker_config::WorkerConfig;

/// How long a stop waits for posts under way; a pod has 30 s by default.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// How long to wait before a worker that failed by a fault of ours begins anew.
const INITIAL_RESTART_BACKOFF: Duration = Duration::from_secs(5);
const MAX_RESTART_BACKOFF: Duration = Duration::from_secs(300);

/// Works until `stop`, then finishes what is under way and remembers it. Ends by itself only when
/// another holder has the checkpoint ([`Phase::ClaimLost`](crate::telemetry::Phase)), or when records
/// were lost and the job says to stop then (`Phase::Stopped`). If the returned
/// future is dropped, everything ends at once, and what was not remembered is repeated by the next
/// worker.
pub async fn run_worker(backends: &Backends, job: &WorkerConfig, stop: &CancellationToken) {
    let mut faults = Backoff::new(INITIAL_RESTART_BACKOFF, MAX_RESTART_BACKOFF);
    let mut known = None;
    let streams = RateLimitedStreams::new(
        backends.streams.clone(),
        job.stream_limits.clone(),
        job.telemetry.clone(),
    );
    let streams = Arc::new(streams);
    loop {
        let begun = Instant::now();
        job.health.starting();
        let opened = async {
            let store = backends.checkpoints.clone();
            tokio::join!(
                claim_checkpoint(&streams, store, job, known.as_ref()),
                open_lookup(backends, job)
            )
        };
        // Before the first record is read there is nothing to finish.
        let Some(((listing, keeper), lookup)) = stop.run_until_cancelled(opened).await else {
            return;
        };
        let renewed = refresh_listing(&streams, job, listing, keeper.checkpoint());
        let Some(listing) = stop.run_until_cancelled(renewed).await else {
            return;
        };
        let tasks = TaskGroup::default();
        let _abandoned = tasks.abort.clone().drop_guard();
        // A data gap may stop this run, and nothing else.
        let stop_run = stop.child_token();
        let pipeline = build_pipeline(backends, job, &streams, lookup, &keeper, &tasks, &stop_run);
        let run =
            Run { streams: streams.clone(), pipeline, listing, tasks, stop: stop_run.clone() };
        match run.consume(job, keeper).await {
            ExitReason::Stopped => return,
            ExitReason::HaltedOnGap => {
                job.telemetry.halted_on_gap();
                job.health.halted_on_gap();
                return;
            }
            ExitReason::CheckpointLost(lost @ ClaimError::TakenOver { .. }, _) => {
                job.telemetry.checkpoint_taken_over(&lost);
                job.health.checkpoint_taken_over(checkpoint_problem(&lost));
                return;
            }
            // The checkpoint was edited by hand and is unusable. It is claimed again once it is
            // fixed, and created from the known positions once it is deleted.
            ExitReason::CheckpointLost(broken, checkpoint) => {
                job.telemetry.retry(&broken);
                known = Some(checkpoint);
            }
            ExitReason::Panicked => {
                known = None;
                job.telemetry.panicked();
                if begun.elapsed() > MAX_RESTART_BACKOFF {
                    faults.reset();
                }
                job.health.set_problem(Component::Worker, super::supervisor::panicked_problem());
                stop.run_until_cancelled(sleep(faults.next_wait(&job.rng))).await;
            }
        }
    }
}

/// How a run ended.
enum ExitReason {
    /// It was stopped.
    Stopped,
    /// Records were lost, and the notifier stops on data gaps.
    HaltedOnGap,
    /// The checkpoint has another holder or is unusable; and what it should be.
    CheckpointLost(ClaimError, Checkpoint),
    /// A task panicked, which is a bug. The next run begins from the stored checkpoint.
    Panicked,
}

/// One run of the worker, from a claimed checkpoint to its last write.
struct Run {
    streams: Arc<RateLimitedStreams>,
    pipeline: Pipeline,
    listing: Listing,
    tasks: TaskGroup,
    stop: CancellationToken,
}

impl Run {
    /// Reads until it is stopped or cannot continue.
    async fn consume(self, job: &WorkerConfig, mut keeper: CheckpointWriter) -> ExitReason {
        let Self { streams, pipeline, listing, tasks, stop } = self;
        let Checkpoint { start, read_at, shards, .. } = keeper.checkpoint().clone();
        let read_at = UnixSeconds(read_at.as_second());
        let positions = Arc::new(Positions::new(shards, read_at));
        let from = ConsumerStart {
            start,
            listing,
            positions: positions.clone(),
            health: job.health.clone(),
            telemetry: job.telemetry.clone(),
            rng: job.rng.clone(),
            stop,
        };
        let sink = Arc::new(pipeline);
        let mut consumer = StreamConsumer::new(streams, job.consumer.clone(), sink, from);
        tokio::select! {
            biased;
            lost = run_checkpoint_loop(&mut keeper, &positions, &job.health, &job.telemetry) => {
                return ExitReason::CheckpointLost(lost, last_known_checkpoint(&keeper, &positions));
            }
            () = tasks.panicked.cancelled() => return ExitReason::Panicked,
            read = consumer.run(read_at) => if read.is_err() { return ExitReason::Panicked },
        }
        tasks.tracker.close();
        let drained = async {
            consumer.drain().await;
            tasks.tracker.wait().await;
        };
        let in_time = timeout(DRAIN_TIMEOUT, drained).await.is_ok();
        job.telemetry.stopped(in_time);
        let last = write_final_checkpoint(&mut keeper, &positions, &job.telemetry).await;
        match last {
            Some(lost) => {
                ExitReason::CheckpointLost(lost, last_known_checkpoint(&keeper, &positions))
            }
            None if consumer.is_halted() => ExitReason::HaltedOnGap,
            None => ExitReason::Stopped,
        }
    }
}

fn last_known_checkpoint(keeper: &CheckpointWriter, positions: &Positions) -> Checkpoint {
    Checkpoint { shards: positions.all(), ..keeper.checkpoint().clone() }
}

/// The delivery of one run.
fn build_pipeline(
    backends: &Backends,
    job: &WorkerConfig,
    streams: &RateLimitedStreams,
    lookup: Lookup,
    keeper: &CheckpointWriter,
    tasks: &TaskGroup,
    stop: &CancellationToken,
) -> Pipeline {
    let lookup = Arc::new(lookup);
    let setup = DispatcherConfig {
        lookup: lookup.clone(),
        gateway: backends.gateway.clone(),
        endpoint: job.delivery.endpoint.clone(),
        policy: job.delivery.policy,
        rate_limiter: job.post_limiter.clone(),
        limits: job.delivery.limits,
        tasks: tasks.clone(),
        health: job.health.clone(),
        telemetry: job.telemetry.clone(),
        rng: job.rng.clone(),
    };
    let clock = streams.clock().clone();
    let memory_kib = job.delivery.limits.memory_kib;
    let skip_before = keeper.checkpoint().start.skip_before();
    Pipeline {
        evaluator: PageEvaluator::new(job.rules.clone(), job.evaluators.handle(), skip_before),
        lookup,
        dispatcher: Arc::new(Dispatcher::new(setup, clock.clone())),
        dead_letters: build_dead_letter_sender(backends, job, tasks),
        memory: Arc::new(Semaphore::new(memory_kib as usize)),
        memory_kib,
        clock,
        health: job.health.clone(),
        telemetry: job.telemetry.clone(),
        stop: stop.clone(),
    }
}

fn build_dead_letter_sender(
    backends: &Backends,
    job: &WorkerConfig,
    tasks: &TaskGroup,
) -> Option<Arc<DeadLetterSender>> {
    let queue = backends.dead_letters.clone()?;
    let (notifier, table) = (job.telemetry.notifier(), job.consumer.table.clone());
    Some(Arc::new(DeadLetterSender::new(
        queue,
        LetterFrom { notifier, table },
        tasks.clone(),
        job.health.clone(),
        job.telemetry.clone(),
        job.rng.clone(),
    )))
}

async fn open_lookup(backends: &Backends, job: &WorkerConfig) -> Lookup {
    Lookup::open(
        backends.connections.clone(),
        job.delivery.connections.clone(),
        job.health.clone(),
        job.telemetry.clone(),
        job.rng.clone(),
    )
    .await
}
