//! How a worker begins: it lists what it is to read, and claims the checkpoint, by a write, before it
//! reads a record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::sleep;

use super::calls::Calls;
use super::config::worker_config::Job;
use super::trouble::{self, LONGEST_WAIT};
use super::{succession, sweep};
use crate::backoff::{Backoff, Failing};
use crate::checkpoint::{Checkpoint, CheckpointStore, ClaimError, Keeper, Start, StartedAt};
use crate::record::{ShardPositions, StreamLabel, UnixSeconds};
use crate::stream::Begin;
use crate::stream::{Follow, Listing};
use crate::telemetry::{Part, Trouble};

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
    let listing = listed(streams, job, &expected).await;
    let keeper = claim(store, job, &listing, found.as_ref()).await;
    let labels = labels(keeper.checkpoint());
    if labels.iter().all(|label| listing.streams.contains_key(label)) {
        return (listing, keeper);
    }
    // It was written, or mended, in between.
    (listed(streams, job, &labels).await, keeper)
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
        false => listed(streams, job, &labels(checkpoint)).await,
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
    job.health.troubled(Part::Checkpoint, trouble::checkpoint(error));
    sleep(backoff.next(&job.random)).await;
}

/// The shards of the `known` streams and of those after them, once they can be described; without a
/// known one, of the stream that reading would begin with, which must have the images that the spec
/// needs.
async fn listed(streams: &Calls, job: &Job, known: &BTreeSet<StreamLabel>) -> Listing {
    let mut failing = Failing::new(LONGEST_WAIT);
    loop {
        let trouble = match sweep::list(streams, &job.consumer.follow, known, &job.random).await {
            Ok(listing) => match unfit(job, &listing, known) {
                Some(trouble) => Some(trouble),
                None => {
                    job.health.well(&Part::Stream);
                    return listing;
                }
            },
            Err(error) => {
                job.telemetry.retrying(&error);
                trouble::stream(&job.consumer.stream_name(), &error, &mut failing)
            }
        };
        if let Some(trouble) = trouble {
            job.health.troubled(Part::Stream, trouble);
        }
        sleep(failing.wait(&job.random)).await;
    }
}

/// Why reading cannot begin, or go on, with what is listed.
fn unfit(job: &Job, listing: &Listing, known: &BTreeSet<StreamLabel>) -> Option<Trouble> {
    let newest = listing.newest();
    let found = newest.filter(|(_, stream)| !stream.is_gone());
    match (found, &job.consumer.follow, &listing.replaced_by) {
        // One that follows those that are known is looked at once they are read.
        (Some((label, stream)), _, _) if known.is_empty() || known.contains(label) => {
            succession::unfit(&job.consumer.required_images, stream)
        }
        _ if !known.is_empty() => None,
        (_, _, Some(new)) => {
            Some(trouble::replaced(&job.consumer.stream_name(), &new.arn(&job.consumer.table)))
        }
        (_, Follow::Stream(_), None) => Some(trouble::not_found(&job.consumer.stream_name())),
        (_, Follow::Table, None) => Some(trouble::no_stream(&job.consumer.table)),
    }
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
