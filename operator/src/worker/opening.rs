//! How a worker begins: it lists what it is to read, and claims the checkpoint, by a write, before it
//! reads a record.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use super::calls::Calls;
use super::retention::timestamp;
use super::trouble::{self, LONGEST_WAIT};
use super::{Begin, Job, sweep};
use crate::backoff::{Backoff, Failing};
use crate::checkpoint::{Checkpoint, CheckpointStore, Keeper, Start, StartedAt};
use crate::record::{StreamLabel, UnixSeconds};
use crate::stream::{Described, Entries, Follow, Listing, Streams, initial};
use crate::telemetry::{Part, Trouble};

/// The streams as they are listed, and the checkpoint, which is ours from here on.
pub async fn claimed<S: Streams, K: CheckpointStore>(
    streams: &Calls<S>,
    store: Arc<K>,
    job: &Job,
    known: Option<&Checkpoint>,
) -> (Listing, Keeper<K>) {
    let first = listed(streams, job, &BTreeSet::new()).await;
    let keeper = claim(store, job, &first, known).await;
    let checkpoint = keeper.checkpoint();
    let mut labels: BTreeSet<_> = checkpoint.shards.keys().map(|id| id.stream.clone()).collect();
    labels.insert(StreamLabel::new(checkpoint.start.label()));
    if first.streams.keys().eq(&labels) {
        return (first, keeper);
    }
    // Streams that were being read, and those between them and the newest.
    (listed(streams, job, &labels).await, keeper)
}

/// The shards of the `known` streams and of those after them, once they can be described; without a
/// known one, of the stream that reading would begin with, which must have the images that the spec
/// needs.
async fn listed<S: Streams>(
    streams: &Calls<S>,
    job: &Job,
    known: &BTreeSet<StreamLabel>,
) -> Listing {
    let mut failing = Failing::new(LONGEST_WAIT);
    loop {
        let trouble = match sweep::list(streams, &job.follow, known).await {
            Ok(listing) => match unfit(job, &listing) {
                Some(trouble) if known.is_empty() => Some(trouble),
                _ => {
                    job.health.well(&Part::Stream);
                    return listing;
                }
            },
            Err(error) => {
                job.telemetry.retrying(&error);
                trouble::stream(&job.stream(), &error, &mut failing)
            }
        };
        if let Some(trouble) = trouble {
            job.health.troubled(Part::Stream, trouble);
        }
        sleep(failing.wait(&job.random)).await;
    }
}

/// Why reading cannot begin with what is listed.
fn unfit(job: &Job, listing: &Listing) -> Option<Trouble> {
    let Some((_, Described { form: Some((view, _)), .. })) = listing.newest() else {
        return Some(match (&job.follow, &listing.replaced_by) {
            (_, Some(new)) => trouble::replaced(&job.stream(), &new.arn(&job.table)),
            (Follow::Stream(_), None) => trouble::not_found(&job.stream()),
            (Follow::Table, None) => trouble::no_stream(&job.table),
        });
    };
    let checked = job.notifier.check_view(view.has_old(), view.has_new(), view.as_str());
    checked.err().map(|invalid| trouble::view(&invalid))
}

/// The checkpoint, claimed: gone on from what is stored, else from what is known, or begun.
async fn claim<K: CheckpointStore>(
    store: Arc<K>,
    job: &Job,
    listing: &Listing,
    known: Option<&Checkpoint>,
) -> Keeper<K> {
    let open = |found: Option<Checkpoint>| match found {
        Some(found) => match continued(found, job) {
            Ok(continued) => continued,
            Err(other) => {
                job.telemetry.other_stream(&other.start.stream, &job.stream());
                begin(job, listing)
            }
        },
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

/// What of a checkpoint can be gone on from; all of it is given back if it is of another stream.
fn continued(mut found: Checkpoint, job: &Job) -> Result<Checkpoint, Checkpoint> {
    let (table, label) = found.start.table_and_label();
    if table != job.table {
        return Err(found);
    }
    if let Follow::Stream(stream) = &job.follow {
        let has_begun = label == stream.as_str();
        if !has_begun && found.shards.keys().all(|id| id.stream != *stream) {
            return Err(found);
        }
        found.shards.retain(|id, _| id.stream == *stream);
        found.start.stream = stream.arn(&job.table);
    }
    Ok(found)
}

/// A checkpoint that begins now, by the service's clock. A second earlier than that, because records
/// carry whole seconds only.
fn begin(job: &Job, listing: &Listing) -> Checkpoint {
    let now = listing.begun_at.unwrap_or(UnixSeconds(0));
    let now = timestamp(UnixSeconds(now.0.saturating_sub(1)));
    let (label, shards) = match listing.newest() {
        Some((label, stream)) if job.begin == Begin::Latest => (Some(label), initial(stream)),
        newest => (newest.map(|(label, _)| label), Entries::new()),
    };
    let (position, at) = match job.begin {
        Begin::Latest => (StartedAt::Latest, now),
        Begin::TrimHorizon => (StartedAt::TrimHorizon, now),
        Begin::AtTimestamp(at) => (StartedAt::AtTimestamp, at),
    };
    let stream = label.map(|label| label.arn(&job.table)).unwrap_or_default();
    let start = Start { stream, position, at };
    Checkpoint { holder: String::new(), epoch: 0, start, read_at: at.min(now), shards }
}
