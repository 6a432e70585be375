//! Starts a worker: lists the streams, and claims the checkpoint by a write before any record is read.

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

/// Initial wait between two attempts to load or claim the checkpoint. `MAX_BACKOFF` is the longest.
const INITIAL_BACKOFF: Duration = Duration::from_millis(500);
const MAX_BACKOFF: Duration = Duration::from_secs(15);

/// Reading must begin with a listing that is not older than this.
const MAX_LISTING_AGE: Duration = Duration::from_secs(60);

/// Lists the streams and claims the checkpoint. Continues from `known` if the stored one was unusable.
pub async fn claim_checkpoint(
    streams: &RateLimitedStreams,
    store: Arc<dyn CheckpointStore>,
    config: &WorkerConfig,
    known: Option<&Checkpoint>,
) -> (Listing, CheckpointWriter) {
    // The stored checkpoint names the streams to read. ListStreams may no longer list some of them.
    let found = match known {
        Some(known) => Some(known.clone()),
        None => peek_checkpoint(&*store, config).await,
    };
    let found = found.and_then(|found| resume_from(found, config).ok());
    let expected = found.as_ref().map(stream_labels).unwrap_or_default();
    let listing = list_until_usable(streams, &listing_params(config), &expected).await;
    let writer = claim(store, config, &listing, found.as_ref()).await;
    let labels = stream_labels(writer.checkpoint());
    if labels.iter().all(|label| listing.streams.contains_key(label)) {
        return (listing, writer);
    }
    // The checkpoint was created or fixed since it was loaded.
    (list_until_usable(streams, &listing_params(config), &labels).await, writer)
}

/// Lists again if the listing is too old, because the claim or the connections table took long.
pub async fn refresh_listing(
    streams: &RateLimitedStreams,
    config: &WorkerConfig,
    listing: Listing,
    checkpoint: &Checkpoint,
) -> Listing {
    match listing.ended.elapsed() < MAX_LISTING_AGE {
        true => listing,
        false => {
            list_until_usable(streams, &listing_params(config), &stream_labels(checkpoint)).await
        }
    }
}

fn listing_params(config: &WorkerConfig) -> ListingParams<'_> {
    ListingParams {
        config: &config.consumer,
        health: &config.health,
        telemetry: &config.telemetry,
        rng: &config.rng,
    }
}

/// The streams that a checkpoint has positions of.
fn stream_labels(checkpoint: &Checkpoint) -> BTreeSet<StreamLabel> {
    if checkpoint.shards.is_empty() {
        return BTreeSet::from([StreamLabel::new(checkpoint.start.label())]);
    }
    checkpoint.shards.keys().map(|id| id.stream.clone()).collect()
}

/// Loads the stored checkpoint, with retries. The claim reports one that does not parse.
async fn peek_checkpoint(store: &dyn CheckpointStore, config: &WorkerConfig) -> Option<Checkpoint> {
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    loop {
        match CheckpointWriter::peek(store).await {
            Ok(stored) => {
                config.health.clear(&Component::Checkpoint);
                return stored;
            }
            Err(ClaimError::Format(_)) => return None,
            Err(error) => report_claim_failure(config, &error, &mut backoff).await,
        }
    }
}

/// Reports why the checkpoint is not claimed yet, and waits.
async fn report_claim_failure(config: &WorkerConfig, error: &ClaimError, backoff: &mut Backoff) {
    config.telemetry.request_failed(error);
    config.health.set_problem(Component::Checkpoint, checkpoint_problem(error));
    sleep(backoff.next_wait(&config.rng)).await;
}

/// Claims the checkpoint, with retries. Continues from the stored one, else from `known`, else creates
/// one.
async fn claim(
    store: Arc<dyn CheckpointStore>,
    config: &WorkerConfig,
    listing: &Listing,
    known: Option<&Checkpoint>,
) -> CheckpointWriter {
    let open = |found: Option<Checkpoint>| match found {
        Some(found) => match resume_from(found, config) {
            Ok(resumed) => resumed,
            Err(other) => {
                config.telemetry.checkpoint_of_other_stream(
                    &other.start.stream,
                    &config.consumer.stream_name(),
                );
                new_checkpoint(config, listing)
            }
        },
        None => known.cloned().unwrap_or_else(|| new_checkpoint(config, listing)),
    };
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    loop {
        match CheckpointWriter::claim(store.clone(), &config.holder, open).await {
            Ok(writer) => {
                let checkpoint = writer.checkpoint();
                config.telemetry.checkpoint_claimed(checkpoint.epoch, checkpoint.shards.len());
                config.health.clear(&Component::Checkpoint);
                return writer;
            }
            Err(error) => report_claim_failure(config, &error, &mut backoff).await,
        }
    }
}

/// The part of a checkpoint that this notifier can resume from. The checkpoint itself, if it is that of
/// another stream.
fn resume_from(mut found: Checkpoint, config: &WorkerConfig) -> Result<Checkpoint, Checkpoint> {
    let (table, label) = found.start.split_arn();
    if table != config.consumer.table {
        return Err(found);
    }
    if let StreamSource::Stream(stream) = &config.consumer.source {
        let has_begun = label == stream.as_str();
        if !has_begun && found.shards.keys().all(|id| id.stream != *stream) {
            return Err(found);
        }
        found.shards.retain(|id, _| id.stream == *stream);
        found.start.stream = stream.arn(&config.consumer.table);
    }
    Ok(found)
}

/// A checkpoint that begins now, by the service's clock. It begins 1 s earlier, because the times of
/// records are rounded down to the second.
fn new_checkpoint(config: &WorkerConfig, listing: &Listing) -> Checkpoint {
    let now = listing.started_at.unwrap_or(UnixSeconds(0));
    let now = Timestamp::from(UnixSeconds(now.0.saturating_sub(1)));
    let (kind, at) = match config.initial_position {
        InitialPosition::Latest => (StartKind::Latest, now),
        InitialPosition::TrimHorizon => (StartKind::TrimHorizon, now),
        InitialPosition::AtTimestamp(at) => (StartKind::AtTimestamp, at),
    };
    let newest = listing.newest().map(|(label, _)| label);
    let stream = newest.map(|label| label.arn(&config.consumer.table)).unwrap_or_default();
    // Before the stream was enabled, there was nothing to read or to lose.
    let enabled_at = newest.and_then(StreamLabel::enabled_at).map_or(at, Timestamp::from);
    let start = StartPoint { stream, kind, at };
    let shards = ShardPositions::new();
    Checkpoint {
        holder: String::new(),
        epoch: 0,
        start,
        read_at: at.max(enabled_at).min(now),
        shards,
    }
}
