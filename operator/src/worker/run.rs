//! Runs the worker of one notifier: claims the checkpoint, consumes the streams, delivers messages, and
//! writes the checkpoint. Only settled records are in the checkpoint.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backends::Backends;
use super::startup::{claim_checkpoint, refresh_listing};
use super::worker_handle::panicked_problem;
use crate::checkpoint::{
    Checkpoint, CheckpointWriter, ClaimError, Positions, checkpoint_problem, run_checkpoint_loop,
    write_final_checkpoint,
};
use crate::delivery::{
    DeadLetterSender, DeadLetterSource, Dispatcher, DispatcherConfig, Lookup, Pipeline, TaskGroup,
};
use crate::model::UnixSeconds;
use crate::rules::PageEvaluator;
use crate::streams::{ConsumerStart, Listing, RateLimitedStreams, StreamConsumer};
use crate::telemetry::Component;
use crate::timing::Backoff;
use crate::worker::config::worker_config::WorkerConfig;

/// The time that a stop waits for posts in flight. A Pod has 30 s by default.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// The wait before a restart after a panic, and its bound.
const INITIAL_RESTART_BACKOFF: Duration = Duration::from_secs(5);
const MAX_RESTART_BACKOFF: Duration = Duration::from_secs(300);

/// Runs until `stop`, then drains and writes the final checkpoint.
///
/// Ends by itself only if another process holds the checkpoint
/// ([`Phase::CheckpointTakenOver`](crate::telemetry::Phase::CheckpointTakenOver)), or if records were lost
/// and the notifier stops on data gaps
/// ([`Phase::HaltedOnGap`](crate::telemetry::Phase::HaltedOnGap)). If the future is dropped, everything
/// ends at once, and the next worker reads again what is not in the checkpoint.
pub async fn run_worker(backends: &Backends, config: &WorkerConfig, stop: &CancellationToken) {
    let mut restarts = Backoff::new(INITIAL_RESTART_BACKOFF, MAX_RESTART_BACKOFF);
    let mut known = None;
    let streams = Arc::new(RateLimitedStreams::new(
        backends.streams.clone(),
        config.stream_limits.clone(),
        config.telemetry.clone(),
    ));
    loop {
        let started = Instant::now();
        config.health.mark_starting();
        let opened = async {
            let store = backends.checkpoints.clone();
            tokio::join!(
                claim_checkpoint(&streams, store, config, known.as_ref()),
                open_lookup(backends, config)
            )
        };
        // Before the first record is read, there is nothing to drain.
        let Some(((listing, writer), lookup)) = stop.run_until_cancelled(opened).await else {
            return;
        };
        let refreshed = refresh_listing(&streams, config, listing, writer.checkpoint());
        let Some(listing) = stop.run_until_cancelled(refreshed).await else {
            return;
        };
        let tasks = TaskGroup::default();
        let _abort_on_drop = tasks.abort.clone().drop_guard();
        // A data gap can stop this run, but nothing else.
        let stop_run = stop.child_token();
        let pipeline =
            build_pipeline(backends, config, &streams, lookup, &writer, &tasks, &stop_run);
        let run = Run { streams: streams.clone(), pipeline, listing, tasks, stop: stop_run };
        match run.consume(config, writer).await {
            ExitReason::Stopped => return,
            ExitReason::HaltedOnGap => {
                config.telemetry.halted_on_gap();
                config.health.mark_halted_on_gap();
                return;
            }
            ExitReason::CheckpointLost(error @ ClaimError::TakenOver { .. }, _) => {
                config.telemetry.checkpoint_taken_over(&error);
                config.health.mark_checkpoint_taken_over(checkpoint_problem(&error));
                return;
            }
            // The checkpoint was edited and is unusable. The worker claims it again once it is
            // fixed, or creates it from the known positions once it is deleted.
            ExitReason::CheckpointLost(error, checkpoint) => {
                config.telemetry.request_failed(&error);
                known = Some(checkpoint);
            }
            ExitReason::Panicked => {
                known = None;
                config.telemetry.worker_panicked();
                if started.elapsed() > MAX_RESTART_BACKOFF {
                    restarts.reset();
                }
                config.health.set_problem(Component::Worker, panicked_problem());
                stop.run_until_cancelled(sleep(restarts.next_wait(&config.rng))).await;
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
    /// The checkpoint has another holder or is unusable; with the checkpoint as it should be.
    CheckpointLost(ClaimError, Checkpoint),
    /// A task panicked, which is a bug. The next run begins from the stored checkpoint.
    Panicked,
}

/// One run, from a claimed checkpoint to its final write.
struct Run {
    streams: Arc<RateLimitedStreams>,
    pipeline: Pipeline,
    listing: Listing,
    tasks: TaskGroup,
    stop: CancellationToken,
}

impl Run {
    /// Reads until it is stopped or cannot continue.
    async fn consume(self, config: &WorkerConfig, mut writer: CheckpointWriter) -> ExitReason {
        let Self { streams, pipeline, listing, tasks, stop } = self;
        let Checkpoint { start, read_at, shards, .. } = writer.checkpoint().clone();
        let read_at = UnixSeconds(read_at.as_second());
        let positions = Arc::new(Positions::new(shards, read_at));
        let from = ConsumerStart {
            start,
            listing,
            positions: positions.clone(),
            health: config.health.clone(),
            telemetry: config.telemetry.clone(),
            rng: config.rng.clone(),
            stop,
        };
        let sink = Arc::new(pipeline);
        let mut consumer = StreamConsumer::new(streams, config.consumer.clone(), sink, from);
        tokio::select! {
            biased;
            lost = run_checkpoint_loop(&mut writer, &positions, &config.health, &config.telemetry) => {
                return ExitReason::CheckpointLost(lost, last_known_checkpoint(&writer, &positions));
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
        config.telemetry.worker_stopped(in_time);
        let last = write_final_checkpoint(&mut writer, &positions, &config.telemetry).await;
        match last {
            Some(lost) => {
                ExitReason::CheckpointLost(lost, last_known_checkpoint(&writer, &positions))
            }
            None if consumer.is_halted() => ExitReason::HaltedOnGap,
            None => ExitReason::Stopped,
        }
    }
}

fn last_known_checkpoint(writer: &CheckpointWriter, positions: &Positions) -> Checkpoint {
    Checkpoint { shards: positions.all(), ..writer.checkpoint().clone() }
}

/// The pipeline of one run.
fn build_pipeline(
    backends: &Backends,
    config: &WorkerConfig,
    streams: &RateLimitedStreams,
    lookup: Lookup,
    writer: &CheckpointWriter,
    tasks: &TaskGroup,
    stop: &CancellationToken,
) -> Pipeline {
    let lookup = Arc::new(lookup);
    let dispatcher = DispatcherConfig {
        lookup: lookup.clone(),
        gateway: backends.gateway.clone(),
        endpoint: config.delivery.endpoint.clone(),
        policy: config.delivery.policy,
        rate_limiter: config.post_limiter.clone(),
        limits: config.delivery.limits,
        tasks: tasks.clone(),
        health: config.health.clone(),
        telemetry: config.telemetry.clone(),
        rng: config.rng.clone(),
    };
    let clock = streams.clock().clone();
    let memory_kib = config.delivery.limits.memory_kib;
    let skip_before = writer.checkpoint().start.skip_before();
    Pipeline {
        evaluator: PageEvaluator::new(
            config.rules.clone(),
            config.evaluators.handle(),
            skip_before,
        ),
        lookup,
        dispatcher: Arc::new(Dispatcher::new(dispatcher, clock.clone())),
        dead_letters: build_dead_letter_sender(backends, config, tasks),
        memory: Arc::new(Semaphore::new(memory_kib as usize)),
        memory_kib,
        clock,
        health: config.health.clone(),
        telemetry: config.telemetry.clone(),
        stop: stop.clone(),
    }
}

fn build_dead_letter_sender(
    backends: &Backends,
    config: &WorkerConfig,
    tasks: &TaskGroup,
) -> Option<Arc<DeadLetterSender>> {
    let queue = backends.dead_letters.clone()?;
    let (notifier, table_arn) = (config.telemetry.notifier(), config.consumer.table.clone());
    Some(Arc::new(DeadLetterSender::new(
        queue,
        DeadLetterSource { notifier, table_arn },
        tasks.clone(),
        config.health.clone(),
        config.telemetry.clone(),
        config.rng.clone(),
    )))
}

async fn open_lookup(backends: &Backends, config: &WorkerConfig) -> Lookup {
    Lookup::open(
        backends.connections.clone(),
        config.delivery.connections.clone(),
        config.health.clone(),
        config.telemetry.clone(),
        config.rng.clone(),
    )
    .await
}
