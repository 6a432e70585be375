//! One notifier at work: claims its checkpoint, reads every shard, and hands each matching change to
//! the delivery; what is settled, and nothing else, is remembered.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backends::Backends;
use super::startup::{claimed, renewed};
use crate::checkpoint::{
    Checkpoint, ClaimError, Keeper, Positions, checkpoint as checkpoint_problem, remember,
    remember_at_last,
};
use crate::delivery::{DeadLetters, Deliverer, From as LetterFrom, Lookup, Pipeline, Setup, Tasks};
use crate::model::UnixSeconds;
use crate::rules::PageEvaluator;
use crate::streams::{Calls, ConsumerStart, Listing, StreamConsumer};
use crate::telemetry::Part;
use crate::timing::Backoff;
use crate::worker::config::worker_config::Job;

/// How long a stop waits for posts under way; a pod has 30 s by default.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How long to wait before a worker that failed by a fault of ours begins anew.
const AFTER_A_FAULT: Duration = Duration::from_secs(5);
const LONGEST_AFTER_A_FAULT: Duration = Duration::from_secs(300);

/// Works until `stop`, then finishes what is under way and remembers it. Ends by itself only when
/// another holder has the checkpoint ([`Phase::ClaimLost`](crate::telemetry::Phase)), or when records
/// were lost and the job says to stop then (`Phase::Stopped`). If the returned
/// future is dropped, everything ends at once, and what was not remembered is repeated by the next
/// worker.
pub async fn work(backends: &Backends, job: &Job, stop: &CancellationToken) {
    let mut faults = Backoff::new(AFTER_A_FAULT, LONGEST_AFTER_A_FAULT);
    let mut known = None;
    let streams = Calls::new(backends.streams.clone(), job.limits.clone(), job.telemetry.clone());
    let streams = Arc::new(streams);
    loop {
        let begun = Instant::now();
        job.health.starting();
        let opened = async {
            let store = backends.checkpoints.clone();
            tokio::join!(claimed(&streams, store, job, known.as_ref()), lookup(backends, job))
        };
        // Before the first record is read there is nothing to finish.
        let Some(((listing, keeper), lookup)) = stop.run_until_cancelled(opened).await else {
            return;
        };
        let renewed = renewed(&streams, job, listing, keeper.checkpoint());
        let Some(listing) = stop.run_until_cancelled(renewed).await else {
            return;
        };
        let tasks = Tasks::default();
        let _abandoned = tasks.abandon.clone().drop_guard();
        // A data gap may stop this run, and nothing else.
        let stop_run = stop.child_token();
        let pipeline = pipeline(backends, job, &streams, lookup, &keeper, &tasks, &stop_run);
        let run =
            Run { streams: streams.clone(), pipeline, listing, tasks, stop: stop_run.clone() };
        match run.read(job, keeper).await {
            Reads::Stopped => return,
            Reads::Halted => {
                job.telemetry.halted();
                job.health.stopped();
                return;
            }
            Reads::Lost(lost @ ClaimError::Lost { .. }, _) => {
                job.telemetry.claim_lost(&lost);
                job.health.claim_lost(checkpoint_problem(&lost));
                return;
            }
            // The checkpoint was edited by hand and is unusable. It is claimed again once it is
            // fixed, and created from the known positions once it is deleted.
            Reads::Lost(broken, checkpoint) => {
                job.telemetry.retrying(&broken);
                known = Some(checkpoint);
            }
            Reads::Broken => {
                known = None;
                job.telemetry.broken();
                if begun.elapsed() > LONGEST_AFTER_A_FAULT {
                    faults.reset();
                }
                job.health.troubled(Part::Worker, super::supervisor::panicked());
                stop.run_until_cancelled(sleep(faults.next(&job.random))).await;
            }
        }
    }
}

/// How a run ended.
enum Reads {
    /// It was stopped.
    Stopped,
    /// Records were lost, and the notifier stops on data gaps.
    Halted,
    /// The checkpoint has another holder or is unusable; and what it should be.
    Lost(ClaimError, Checkpoint),
    /// A task panicked, which is a bug. The next run begins from the stored checkpoint.
    Broken,
}

/// One run of the worker, from a claimed checkpoint to its last write.
struct Run {
    streams: Arc<Calls>,
    pipeline: Pipeline,
    listing: Listing,
    tasks: Tasks,
    stop: CancellationToken,
}

impl Run {
    /// Reads until it is stopped or cannot continue.
    async fn read(self, job: &Job, mut keeper: Keeper) -> Reads {
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
            random: job.random.clone(),
            stop,
        };
        let sink = Arc::new(pipeline);
        let mut consumer = StreamConsumer::new(streams, job.consumer.clone(), sink, from);
        tokio::select! {
            biased;
            lost = remember(&mut keeper, &positions, &job.health, &job.telemetry) => {
                return Reads::Lost(lost, known(&keeper, &positions));
            }
            () = tasks.broken.cancelled() => return Reads::Broken,
            read = consumer.run(read_at) => if read.is_err() { return Reads::Broken },
        }
        tasks.tracker.close();
        let drained = async {
            consumer.drain().await;
            tasks.tracker.wait().await;
        };
        let in_time = timeout(DRAIN_LIMIT, drained).await.is_ok();
        job.telemetry.stopped(in_time);
        let last = remember_at_last(&mut keeper, &positions, &job.telemetry).await;
        match last {
            Some(lost) => Reads::Lost(lost, known(&keeper, &positions)),
            None if consumer.is_halted() => Reads::Halted,
            None => Reads::Stopped,
        }
    }
}

fn known(keeper: &Keeper, positions: &Positions) -> Checkpoint {
    Checkpoint { shards: positions.all(), ..keeper.checkpoint().clone() }
}

/// The delivery of one run.
fn pipeline(
    backends: &Backends,
    job: &Job,
    streams: &Calls,
    lookup: Lookup,
    keeper: &Keeper,
    tasks: &Tasks,
    stop: &CancellationToken,
) -> Pipeline {
    let lookup = Arc::new(lookup);
    let setup = Setup {
        lookup: lookup.clone(),
        gateway: backends.gateway.clone(),
        endpoint: job.delivery.endpoint.clone(),
        policy: job.delivery.policy,
        limits: job.post_limits.clone(),
        bounds: job.delivery.bounds,
        tasks: tasks.clone(),
        health: job.health.clone(),
        telemetry: job.telemetry.clone(),
        random: job.random.clone(),
    };
    let clock = streams.clock().clone();
    let memory_kib = job.delivery.bounds.memory_kib;
    let skip_before = keeper.checkpoint().start.not_before();
    Pipeline {
        evaluator: PageEvaluator::new(job.notifier.clone(), job.evaluator.turns(), skip_before),
        lookup,
        deliverer: Arc::new(Deliverer::new(setup, clock.clone())),
        dead_letters: dead_letters(backends, job, tasks),
        memory: Arc::new(Semaphore::new(memory_kib as usize)),
        memory_kib,
        clock,
        health: job.health.clone(),
        telemetry: job.telemetry.clone(),
        stop: stop.clone(),
    }
}

fn dead_letters(backends: &Backends, job: &Job, tasks: &Tasks) -> Option<Arc<DeadLetters>> {
    let queue = backends.dead_letters.clone()?;
    let (notifier, table) = (job.telemetry.notifier(), job.consumer.table.clone());
    Some(Arc::new(DeadLetters::new(
        queue,
        LetterFrom { notifier, table },
        tasks.clone(),
        job.health.clone(),
        job.telemetry.clone(),
        job.random.clone(),
    )))
}

async fn lookup(backends: &Backends, job: &Job) -> Lookup {
    Lookup::open(
        backends.connections.clone(),
        job.delivery.source.clone(),
        job.health.clone(),
        job.telemetry.clone(),
        job.random.clone(),
    )
    .await
}
