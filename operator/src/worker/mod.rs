//! One notifier at work: claims its checkpoint, reads every shard, and hands each matching change to
//! the delivery; what is settled, and nothing else, is remembered.

mod age;
mod calls;
mod children;
mod doubt;
mod evaluator;
mod family;
mod job;
mod judge;
mod opening;
mod pace;
mod page;
mod positions;
mod progress;
mod reading;
mod remember;
mod retention;
mod shard;
mod shared;
mod succession;
mod supervisor;
mod sweep;
mod trouble;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use evaluator::Evaluator;
pub use job::{Begin, Job, Neighbours};
pub use retention::OnGap;
pub use supervisor::{NotifierId, Revision, Supervisor};

use crate::backoff::Backoff;
use crate::checkpoint::{Checkpoint, CheckpointStore, ClaimError, Keeper};
use crate::clock::ServiceClock;
use crate::delivery::{
    Connections, DeadLetters, Deliverer, Gateway, LetterFrom, Lookup, Setup, Tasks,
};
use crate::record::UnixSeconds;
use crate::stream::{Listing, Streams};
use crate::telemetry::Part;
use age::tell_age;
use calls::Calls;
use opening::{claimed, renewed};
use pace::Beat;
use positions::Positions;
use reading::Reading;
use remember::{remember, remember_at_last};
use shared::Shared;
use sweep::Sweeper;

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
pub async fn work<S, C, G, K>(
    neighbours: &Neighbours<S, C, G, K>,
    job: &Job,
    stop: &CancellationToken,
) where
    S: Streams,
    C: Connections,
    G: Gateway,
    K: CheckpointStore,
{
    let mut faults = Backoff::new(AFTER_A_FAULT, LONGEST_AFTER_A_FAULT);
    let mut known = None;
    let streams = Calls::new(neighbours.streams.clone(), job.limits.clone(), job.telemetry.clone());
    let streams = Arc::new(streams);
    loop {
        let begun = Instant::now();
        job.health.starting();
        let opened = async {
            let store = neighbours.store.clone();
            tokio::join!(claimed(&streams, store, job, known.as_ref()), lookup(neighbours, job))
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
        let clients = (Arc::new(lookup), neighbours.gateway.clone(), streams.clock().clone());
        let not_before = keeper.checkpoint().start.not_before();
        let shared = shared(job, stop, listing, not_before, clients, &tasks);
        match read(streams.clone(), job, Arc::new(shared), keeper, tasks).await {
            Reads::Stopped => return,
            Reads::Halted => {
                job.telemetry.halted();
                job.health.stopped();
                return;
            }
            Reads::Lost(lost @ ClaimError::Lost { .. }, _) => {
                job.telemetry.claim_lost(&lost);
                job.health.claim_lost(trouble::checkpoint(&lost));
                return;
            }
            // Somebody broke the checkpoint by hand: it is claimed again once it is mended, and made
            // again from what is known once it is deleted.
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
                job.health.troubled(Part::Worker, trouble::fault());
                stop.run_until_cancelled(sleep(faults.next(&job.random))).await;
            }
        }
    }
}

/// How reading ended.
enum Reads {
    /// As it was told.
    Stopped,
    /// Records were lost, and the job says to stop then.
    Halted,
    /// The checkpoint is not ours any more, or not readable; and what it should be.
    Lost(ClaimError, Checkpoint),
    /// A task panicked, a fault of ours: everything begins anew from the checkpoint.
    Broken,
}

/// Reads until told to stop, or until it cannot go on.
async fn read<S, C, G, K>(
    streams: Arc<Calls<S>>,
    job: &Job,
    shared: Arc<Shared<C, G>>,
    mut keeper: Keeper<K>,
    tasks: Tasks,
) -> Reads
where
    S: Streams,
    C: Connections,
    G: Gateway,
    K: CheckpointStore,
{
    let Checkpoint { start, read_at, shards, .. } = keeper.checkpoint().clone();
    let read_at = UnixSeconds(read_at.as_second());
    let positions = Arc::new(Positions::new(shards, read_at));
    let mut reading = Reading::new(streams.clone(), shared.clone(), positions.clone(), start);
    tokio::select! {
        biased;
        lost = remember(&mut keeper, &positions, &job.health, &job.telemetry) => {
            return Reads::Lost(lost, known(&keeper, &positions));
        }
        () = tasks.broken.cancelled() => return Reads::Broken,
        never = shared.sweep(&streams) => match never {},
        never = tell_age(&positions, &shared.clock, &job.telemetry) => match never {},
        read = reading.run(read_at) => if read.is_err() { return Reads::Broken },
    }
    tasks.tracker.close();
    let drained = async {
        reading.wait().await;
        tasks.tracker.wait().await;
    };
    let in_time = timeout(DRAIN_LIMIT, drained).await.is_ok();
    job.telemetry.stopped(in_time);
    let last = remember_at_last(&mut keeper, &positions, &job.telemetry).await;
    match last {
        Some(lost) => Reads::Lost(lost, known(&keeper, &positions)),
        None if shared.halted.load(Ordering::Relaxed) => Reads::Halted,
        None => Reads::Stopped,
    }
}

fn known<K: CheckpointStore>(keeper: &Keeper<K>, positions: &Positions) -> Checkpoint {
    Checkpoint { shards: positions.all(), ..keeper.checkpoint().clone() }
}

fn shared<C: Connections, G: Gateway>(
    job: &Job,
    stop: &CancellationToken,
    listing: Listing,
    not_before: Option<UnixSeconds>,
    (lookup, gateway, clock): (Arc<Lookup<C>>, Arc<G>, Arc<ServiceClock>),
    tasks: &Tasks,
) -> Shared<C, G> {
    let setup = Setup {
        lookup: lookup.clone(),
        gateway,
        endpoint: job.endpoint.clone(),
        policy: job.policy,
        limits: job.post_limits.clone(),
        bounds: job.bounds,
        tasks: tasks.clone(),
        health: job.health.clone(),
        telemetry: job.telemetry.clone(),
        random: job.random.clone(),
    };
    Shared {
        notifier: job.notifier.clone(),
        turns: job.evaluator.turns(),
        not_before,
        lookup,
        deliverer: Arc::new(Deliverer::new(setup, clock.clone())),
        dead_letters: dead_letters(job, tasks),
        bounds: job.bounds,
        pages: Semaphore::new(job.bounds.pages),
        memory: Arc::new(Semaphore::new(job.bounds.memory_kib as usize)),
        poll_interval: job.poll_interval,
        beat: Beat::default(),
        table: job.table.clone(),
        stream: job.stream(),
        follow: job.follow.clone(),
        on_gap: job.on_gap,
        clock,
        sweeper: Sweeper::new(listing),
        health: job.health.clone(),
        telemetry: job.telemetry.clone(),
        random: job.random.clone(),
        // A gap may stop this reading, and nothing else.
        stop: stop.child_token(),
        halted: AtomicBool::new(false),
    }
}

fn dead_letters(job: &Job, tasks: &Tasks) -> Option<Arc<DeadLetters>> {
    let (arn, queue) = job.dead_letters.clone()?;
    let from = LetterFrom { notifier: job.telemetry.notifier(), table: job.table.clone() };
    Some(Arc::new(DeadLetters::new(
        queue,
        arn,
        from,
        tasks.clone(),
        job.health.clone(),
        job.telemetry.clone(),
        job.random.clone(),
    )))
}

async fn lookup<S, C: Connections, G, K>(
    neighbours: &Neighbours<S, C, G, K>,
    job: &Job,
) -> Lookup<C> {
    Lookup::open(
        neighbours.connections.clone(),
        job.source.clone(),
        job.health.clone(),
        job.telemetry.clone(),
        job.random.clone(),
    )
    .await
}
