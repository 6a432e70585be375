//! How a worker begins: it lists what it is to read, and claims the checkpoint, by a write, before it
//! reads a record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use crate::checkpoint::{
    Checkpoint, CheckpointStore, ClaimError, Keeper, Start, StartedAt,
    checkpoint as checkpoint_problem,
};
use crate::model::{ShardPositions, StreamLabel, UnixSeconds};
use crate::streams::{Asked, Begin, Calls, Follow, Listing, listed};
use crate::telemetry::Part;
use crate::timing::Backoff;
use crate::worker::config::worker_config::Job;

const FIRST_WAIT: Duration = Duration::from_millis(500);
const LONGEST_CLAIM_WAIT: Duration = Duration::from_secs(15);

/// Reading begins with a listing that is not older than this.
const LISTING_AGE: Duration = Duration::from_secs(60);

/// The streams as they are listed, and the checkpoint, which is ours from here on.
pub async fn claimed(
    streams: &Calls,
    store: Arc<dyn CheckpointStore>,
    job: &Job,
    known: Option<&Checkpoint>,
) -> (Listing, Keeper) {
    // What is stored says which streams are still to be read; some may be listed nowhere else.
    let found = match known {
        Some(known) => Some(known.clone()),
        None => stored(&*store, job).await,
    };
    let found = found.and_then(|found| continued(found, job).ok());
    let expected = found.as_ref().map(labels).unwrap_or_default();
    let listing = listed(streams, &asked(job), &expected).await;
    let keeper = claim(store, job, &listing, found.as_ref()).await;
    let labels = labels(keeper.checkpoint());
    if labels.iter().all(|label| listing.streams.contains_key(label)) {
        return (listing, keeper);
    }
    // It was written, or mended, in between.
    (listed(streams, &asked(job), &labels).await, keeper)
}

/// The listing, made again if the claim, or the connections table, kept reading from beginning for so
/// long that it is old.
pub async fn renewed(
    streams: &Calls,
    job: &Job,
    listing: Listing,
    checkpoint: &Checkpoint,
) -> Listing {
    match listing.ended.elapsed() < LISTING_AGE {
        true => listing,
        false => listed(streams, &asked(job), &labels(checkpoint)).await,
    }
}

fn asked(job: &Job) -> Asked<'_> {
    Asked {
        config: &job.consumer,
        health: &job.health,
        telemetry: &job.telemetry,
        random: &job.random,
    }
}

/// The streams that a checkpoint is about.
fn labels(checkpoint: &Checkpoint) -> BTreeSet<StreamLabel> {
    if checkpoint.shards.is_empty() {
        return BTreeSet::from([StreamLabel::new(checkpoint.start.label())]);
    }
    checkpoint.shards.keys().map(|id| id.stream.clone()).collect()
}

/// What is stored, once the store answers. What is wrong with it is told once it is claimed.
async fn stored(store: &dyn CheckpointStore, job: &Job) -> Option<Checkpoint> {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_CLAIM_WAIT);
    loop {
        match Keeper::stored(store).await {
            Ok(stored) => {
                job.health.well(&Part::Checkpoint);
                return stored;
            }
            Err(ClaimError::Format(_)) => return None,
            Err(error) => refused(job, &error, &mut backoff).await,
        }
    }
}

/// Tells why the checkpoint is not ours yet, and waits.
async fn refused(job: &Job, error: &ClaimError, backoff: &mut Backoff) {
    job.telemetry.retrying(error);
    job.health.troubled(Part::Checkpoint, checkpoint_problem(error));
    sleep(backoff.next(&job.random)).await;
}

/// The checkpoint, claimed: gone on from what is stored, else from what is known, or begun.
async fn claim(
    store: Arc<dyn CheckpointStore>,
    job: &Job,
    listing: &Listing,
    known: Option<&Checkpoint>,
) -> Keeper {
    let open = |found: Option<Checkpoint>| match found {
        Some(found) => match continued(found, job) {
            Ok(continued) => continued,
            Err(other) => {
                job.telemetry.other_stream(&other.start.stream, &job.consumer.stream_name());
                begin(job, listing)
            }
        },
        None => known.cloned().unwrap_or_else(|| begin(job, listing)),
    };
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_CLAIM_WAIT);
    loop {
        match Keeper::claim(store.clone(), &job.holder, open).await {
            Ok(keeper) => {
                let checkpoint = keeper.checkpoint();
                job.telemetry.claimed(checkpoint.epoch, checkpoint.shards.len());
                job.health.well(&Part::Checkpoint);
                return keeper;
            }
            Err(error) => refused(job, &error, &mut backoff).await,
        }
    }
}

/// What of a checkpoint can be gone on from; all of it is given back if it is of another stream.
fn continued(mut found: Checkpoint, job: &Job) -> Result<Checkpoint, Checkpoint> {
    let (table, label) = found.start.table_and_label();
    if table != job.consumer.table {
        return Err(found);
    }
    if let Follow::Stream(stream) = &job.consumer.follow {
        let has_begun = label == stream.as_str();
        if !has_begun && found.shards.keys().all(|id| id.stream != *stream) {
            return Err(found);
        }
        found.shards.retain(|id, _| id.stream == *stream);
        found.start.stream = stream.arn(&job.consumer.table);
    }
    Ok(found)
}

/// A checkpoint that begins now, by the service's clock. A second earlier than that, because records
/// carry whole seconds only.
fn begin(job: &Job, listing: &Listing) -> Checkpoint {
    let now = listing.begun_at.unwrap_or(UnixSeconds(0));
    let now = Timestamp::from(UnixSeconds(now.0.saturating_sub(1)));
    let (position, at) = match job.begin {
        Begin::Latest => (StartedAt::Latest, now),
        Begin::TrimHorizon => (StartedAt::TrimHorizon, now),
        Begin::AtTimestamp(at) => (StartedAt::AtTimestamp, at),
    };
    let newest = listing.newest().map(|(label, _)| label);
    let stream = newest.map(|label| label.arn(&job.consumer.table)).unwrap_or_default();
    // Before the stream there was nothing to be read, nor to be lost.
    let made_at = newest.and_then(StreamLabel::enabled_at).map_or(at, Timestamp::from);
    let start = Start { stream, position, at };
    let shards = ShardPositions::new();
    Checkpoint { holder: String::new(), epoch: 0, start, read_at: at.max(made_at).min(now), shards }
}
