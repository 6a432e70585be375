//! One notifier at work: claims its checkpoint, reads every shard, and hands each matching change to
//! the delivery; what is settled, and nothing else, is remembered.

mod positions;
mod progress;
mod reading;
mod remember;
mod shard;
mod supervisor;
mod sweep;
mod trouble;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

pub use supervisor::{NotifierId, Revision, Supervisor};

use crate::backoff::{Backoff, Failing, Random};
use crate::checkpoint::{Checkpoint, CheckpointStore, ClaimError, Keeper, Start, StartedAt};
use crate::delivery::{Connections, Deliverer, Gateway, Lookup, Source, Tasks};
use crate::notifier::Notifier;
use crate::record::UnixSeconds;
use crate::stream::{Streams, initial};
use crate::telemetry::{Health, NotifierTelemetry, Part};
use positions::Positions;
use reading::Reading;
use remember::{remember, remember_at_last};
use shard::{MEMORY, Shared};
use sweep::{Listing, Sweeper};
use trouble::LONGEST_WAIT;

/// How long a stop waits for posts under way; a pod has 30 s by default.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// How long to wait before a worker that failed by a fault of ours begins anew.
const AFTER_A_FAULT: Duration = Duration::from_secs(5);
const LONGEST_AFTER_A_FAULT: Duration = Duration::from_secs(300);

/// The four that a worker talks to.
#[derive(Debug)]
pub struct Neighbours<S, C, G, K> {
    /// The stream.
    pub streams: Arc<S>,
    /// The connections table.
    pub connections: Arc<C>,
    /// The WebSocket API.
    pub gateway: Arc<G>,
    /// The checkpoint's store.
    pub store: Arc<K>,
}

/// What one worker is to do.
#[derive(Debug)]
pub struct Job {
    /// Who is told what.
    pub notifier: Arc<Notifier>,
    /// The stream, as the checkpoint and conditions name it.
    pub stream: String,
    /// Where reading begins while there is no checkpoint.
    pub starting_position: StartedAt,
    /// How connections are stored.
    pub source: Source,
    /// The WebSocket API's endpoint, named in conditions.
    pub endpoint: String,
    /// Who holds the checkpoint: this process.
    pub holder: String,
    /// How often a quiet shard is asked.
    pub poll_interval: Duration,
    /// Where troubles are told.
    pub health: Arc<Health>,
    /// Where events are told.
    pub telemetry: NotifierTelemetry,
    /// What spreads the waits.
    pub random: Arc<Random>,
}

/// Works until `stop`, then finishes what is under way and remembers it. Ends by itself only when
/// another holder has the checkpoint ([`Phase::ClaimLost`](crate::telemetry::Phase)). If the returned
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
    loop {
        let begun = Instant::now();
        job.health.starting();
        let opened = async {
            tokio::join!(claimed(neighbours, job, known.as_ref()), lookup(neighbours, job))
        };
        // Before the first record is read there is nothing to finish.
        let Some(((listing, keeper), lookup)) = stop.run_until_cancelled(opened).await else {
            return;
        };
        match read(neighbours, job, stop, listing, keeper, lookup).await {
            Reads::Stopped => return,
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
    /// The checkpoint is not ours any more, or not readable; and what it should be.
    Lost(ClaimError, Checkpoint),
    /// A task panicked, a fault of ours: everything begins anew from the checkpoint.
    Broken,
}

/// Reads until told to stop, or until it cannot go on.
async fn read<S, C, G, K>(
    neighbours: &Neighbours<S, C, G, K>,
    job: &Job,
    stop: &CancellationToken,
    listing: Listing,
    mut keeper: Keeper<K>,
    lookup: Lookup<C>,
) -> Reads
where
    S: Streams,
    C: Connections,
    G: Gateway,
    K: CheckpointStore,
{
    let tasks = Tasks::default();
    let _abandoned = tasks.abandon.clone().drop_guard();
    let streams = &neighbours.streams;
    let positions = Arc::new(Positions::new(keeper.checkpoint().shards.clone()));
    let not_before = keeper.checkpoint().start.not_before();
    let shared = Arc::new(shared(neighbours, job, stop, listing, not_before, lookup, &tasks));
    let mut reading = Reading::new(streams.clone(), shared.clone(), positions.clone());
    tokio::select! {
        biased;
        lost = remember(&mut keeper, &positions, &job.health, &job.telemetry) => {
            return Reads::Lost(lost, known(&keeper, &positions));
        }
        () = tasks.broken.cancelled() => return Reads::Broken,
        never = shared.sweep(&**streams) => match never {},
        read = reading.run() => if read.is_err() { return Reads::Broken },
    }
    tasks.tracker.close();
    let drained = async {
        reading.wait().await;
        tasks.tracker.wait().await;
    };
    let in_time = timeout(DRAIN_LIMIT, drained).await.is_ok();
    job.telemetry.stopped(in_time);
    match remember_at_last(&mut keeper, &positions, &job.telemetry).await {
        None => Reads::Stopped,
        Some(lost) => Reads::Lost(lost, known(&keeper, &positions)),
    }
}

fn known<K: CheckpointStore>(keeper: &Keeper<K>, positions: &Positions) -> Checkpoint {
    Checkpoint { shards: positions.all(), ..keeper.checkpoint().clone() }
}

fn shared<S, C: Connections, G: Gateway, K>(
    neighbours: &Neighbours<S, C, G, K>,
    job: &Job,
    stop: &CancellationToken,
    listing: Listing,
    not_before: Option<UnixSeconds>,
    lookup: Lookup<C>,
    tasks: &Tasks,
) -> Shared<C, G> {
    let lookup = Arc::new(lookup);
    let deliverer = Deliverer::new(
        lookup.clone(),
        neighbours.gateway.clone(),
        job.endpoint.clone(),
        tasks.clone(),
        job.health.clone(),
        job.telemetry.clone(),
        job.random.clone(),
    );
    Shared {
        notifier: job.notifier.clone(),
        keys: listing.keys.clone(),
        not_before,
        lookup,
        deliverer: Arc::new(deliverer),
        memory: Arc::new(Semaphore::new(MEMORY as usize)),
        poll_interval: job.poll_interval,
        stream: job.stream.clone(),
        sweeper: Sweeper::new(listing),
        health: job.health.clone(),
        telemetry: job.telemetry.clone(),
        random: job.random.clone(),
        stop: stop.clone(),
    }
}

/// The stream as it is listed, and its checkpoint, which is ours from here on.
async fn claimed<S: Streams, C, G, K: CheckpointStore>(
    neighbours: &Neighbours<S, C, G, K>,
    job: &Job,
    known: Option<&Checkpoint>,
) -> (Listing, Keeper<K>) {
    let listing = first_listing(&*neighbours.streams, job).await;
    let keeper = claim(neighbours.store.clone(), job, &listing, known).await;
    (listing, keeper)
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

/// The stream's shards, once it can be described and has the images that the spec needs.
async fn first_listing<S: Streams>(streams: &S, job: &Job) -> Listing {
    let mut failing = Failing::new(LONGEST_WAIT);
    loop {
        let trouble = match sweep::list(streams).await {
            Ok(listing) => match job.notifier.check_view(
                listing.view.has_old(),
                listing.view.has_new(),
                listing.view.as_str(),
            ) {
                Ok(()) => {
                    job.health.well(&Part::Stream);
                    return listing;
                }
                Err(invalid) => Some(trouble::view(&invalid)),
            },
            Err(error) => {
                job.telemetry.retrying(&error);
                trouble::stream(&job.stream, &error, &mut failing)
            }
        };
        if let Some(trouble) = trouble {
            job.health.troubled(Part::Stream, trouble);
        }
        sleep(failing.wait(&job.random)).await;
    }
}

/// The checkpoint, claimed: gone on from what is stored, else from what is known, or begun.
async fn claim<K: CheckpointStore>(
    store: Arc<K>,
    job: &Job,
    listing: &Listing,
    known: Option<&Checkpoint>,
) -> Keeper<K> {
    let open = |found: Option<Checkpoint>| match found {
        Some(found) if found.start.stream == job.stream => found,
        Some(other) => {
            job.telemetry.other_stream(&other.start.stream, &job.stream);
            begin(job, listing)
        }
        None => known.cloned().unwrap_or_else(|| begin(job, listing)),
    };
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(15));
    loop {
        match Keeper::claim(store.clone(), &job.holder, open).await {
            Ok(keeper) => {
                let checkpoint = keeper.checkpoint();
                job.telemetry.claimed(checkpoint.epoch, checkpoint.shards.len());
                job.health.well(&Part::Checkpoint);
                return keeper;
            }
            Err(error) => {
                job.telemetry.retrying(&error);
                job.health.troubled(Part::Checkpoint, trouble::checkpoint(&error));
                sleep(backoff.next(&job.random)).await;
            }
        }
    }
}

/// A checkpoint that begins now, by the service's clock. A second earlier than that, because records
/// carry whole seconds only.
fn begin(job: &Job, listing: &Listing) -> Checkpoint {
    let UnixSeconds(now) = listing.service_time;
    let start = Start {
        stream: job.stream.clone(),
        position: job.starting_position,
        at: Timestamp::from_second(now.saturating_sub(1)).unwrap_or(Timestamp::UNIX_EPOCH),
    };
    let shards = match job.starting_position {
        StartedAt::Latest => initial(&listing.shards),
        StartedAt::TrimHorizon => std::collections::BTreeMap::new(),
    };
    Checkpoint { holder: String::new(), epoch: 0, start, shards }
}
