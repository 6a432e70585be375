//! How a worker begins: it lists what it is to read, and claims the checkpoint, by a write, before it
//! reads a record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use crate::checkpoint::{
    Checkpoint, CheckpointStore, CheckpointWriter, ClaimError, StartKind, StartPoint,
    checkpoint_problem,
};
use crate::model::{ShardPositions, StreamLabel, UnixSeconds};
use crate::streams::{
    InitialPosition, Listing, ListingParams, RateLimitedStreams, StreamSource, list_until_usable,
};
use crate::telemetry::Component;
use crate::timing::Backoff;
use crate::worker::config::worker_config::WorkerConfig;

const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Reading begins with a listing that is not older than this.
const MAX_LISTING_AGE: Duration = Duration::from_secs(60);

/// The streams as they are listed, and the checkpoint, which is ours from here on.
pub async fn claim_checkpoint(
    streams: &RateLimitedStreams,
    store: Arc<dyn CheckpointStore>,
    job: &WorkerConfig,
    known: Option<&Checkpoint>,
) -> (Listing, CheckpointWriter) {
    // What is stored says which streams are still to be read; some may be listed nowhere else.
    let found = match known {
        Some(known) => Some(known.clone()),
        None => peek_checkpoint(&*store, job).await,
    };
    let found = found.and_then(|found| resume_from(found, job).ok());
    let expected = found.as_ref().map(stream_labels).unwrap_or_default();
    let listing = list_until_usable(streams, &listing_params(job), &expected).await;
    let keeper = claim(store, job, &listing, found.as_ref()).await;
    let labels = stream_labels(keeper.checkpoint());
    if labels.iter().all(|label| listing.streams.contains_key(label)) {
        return (listing, keeper);
    }
    // It was written, or mended, in between.
    (list_until_usable(streams, &listing_params(job), &labels).await, keeper)
}

/// The listing, made again if the claim, or the connections table, kept reading from beginning for so
/// long that it is old.
pub async fn refresh_listing(
    streams: &RateLimitedStreams,
    job: &WorkerConfig,
    listing: Listing,
    checkpoint: &Checkpoint,
) -> Listing {
    match listing.ended.elapsed() < MAX_LISTING_AGE {
        true => listing,
        false => list_until_usable(streams, &listing_params(job), &stream_labels(checkpoint)).await,
    }
}

fn listing_params(job: &WorkerConfig) -> ListingParams<'_> {
    ListingParams {
        config: &job.consumer,
        health: &job.health,
        telemetry: &job.telemetry,
        random: &job.rng,
    }
}

/// The streams that a checkpoint is about.
fn stream_labels(checkpoint: &Checkpoint) -> BTreeSet<StreamLabel> {
    if checkpoint.shards.is_empty() {
        return BTreeSet::from([StreamLabel::new(checkpoint.start.label())]);
    }
    checkpoint.shards.keys().map(|id| id.stream.clone()).collect()
}

/// What is stored, once the store answers. What is wrong with it is told once it is claimed.
async fn peek_checkpoint(store: &dyn CheckpointStore, job: &WorkerConfig) -> Option<Checkpoint> {
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    loop {
        match CheckpointWriter::peek(store).await {
            Ok(stored) => {
                job.health.clear(&Component::Checkpoint);
                return stored;
            }
            Err(ClaimError::Format(_)) => return None,
            Err(error) => report_claim_failure(job, &error, &mut backoff).await,
        }
    }
}

/// Tells why the checkpoint is not ours yet, and waits.
async fn report_claim_failure(job: &WorkerConfig, error: &ClaimError, backoff: &mut Backoff) {
    job.telemetry.retry(error);
    job.health.set_problem(Component::Checkpoint, checkpoint_problem(error));
    sleep(backoff.next_wait(&job.rng)).await;
}

/// The checkpoint, claimed: gone on from what is stored, else from what is known, or begun.
async fn claim(
    store: Arc<dyn CheckpointStore>,
    job: &WorkerConfig,
    listing: &Listing,
    known: Option<&Checkpoint>,
) -> CheckpointWriter {
    let open = |found: Option<Checkpoint>| match found {
        Some(found) => match resume_from(found, job) {
            Ok(continued) => continued,
            Err(other) => {
                job.telemetry
                    .checkpoint_of_other_stream(&other.start.stream, &job.consumer.stream_name());
                new_checkpoint(job, listing)
            }
        },
        None => known.cloned().unwrap_or_else(|| new_checkpoint(job, listing)),
    };
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    loop {
        match CheckpointWriter::claim(store.clone(), &job.holder, open).await {
            Ok(keeper) => {
                let checkpoint = keeper.checkpoint();
                job.telemetry.claimed(checkpoint.epoch, checkpoint.shards.len());
                job.health.clear(&Component::Checkpoint);
                return keeper;
            }
            Err(error) => report_claim_failure(job, &error, &mut backoff).await,
        }
    }
}

/// What of a checkpoint can be gone on from; all of it is given back if it is of another stream.
fn resume_from(mut found: Checkpoint, job: &WorkerConfig) -> Result<Checkpoint, Checkpoint> {
    let (table, label) = found.start.split_arn();
    if table != job.consumer.table {
        return Err(found);
    }
    if let StreamSource::Stream(stream) = &job.consumer.source {
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
fn new_checkpoint(job: &WorkerConfig, listing: &Listing) -> Checkpoint {
    let now = listing.started_at.unwrap_or(UnixSeconds(0));
    let now = Timestamp::from(UnixSeconds(now.0.saturating_sub(1)));
    let (position, at) = match job.initial_position {
        InitialPosition::Latest => (StartKind::Latest, now),
        InitialPosition::TrimHorizon => (StartKind::TrimHorizon, now),
        InitialPosition::AtTimestamp(at) => (StartKind::AtTimestamp, at),
    };
    let newest = listing.newest().map(|(label, _)| label);
    let stream = newest.map(|label| label.arn(&job.consumer.table)).unwrap_or_default();
    // Before the stream there was nothing to be read, nor to be lost.
    let made_at = newest.and_then(StreamLabel::enabled_at).map_or(at, Timestamp::from);
    let start = StartPoint { stream, kind: position, at };
    let shards = ShardPositions::new();
    Checkpoint { holder: String::new(), epoch: 0, start, read_at: at.max(made_at).min(now), shards }
}
