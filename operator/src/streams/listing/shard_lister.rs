//! Lists the shards of every consumed stream, periodically and on request.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::model::{ShardId, StreamLabel};
use crate::streams::config::StreamSource;
use crate::streams::listing::{Listing, StreamDescription};
use crate::streams::problems;
use crate::streams::problems::MAX_RETRY_WAIT;
use crate::streams::service::error::{StreamError, StreamErrorKind};
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::streams::service::streams::{ShardFilter, StreamPage, Streams};
use crate::telemetry::{Component, Health, NotifierTelemetry};
use crate::timing::{Backoff, FailureTracker, JitterRng};

/// Interval of periodic listings. Children are found when their parent ends, so a periodic listing
/// only finds what that missed.
const LISTING_INTERVAL: Duration = Duration::from_secs(30);

/// Minimum interval of periodic listings per page, so that one notifier's listings use at most a
/// sixteenth of the DescribeStream quota.
const LISTING_INTERVAL_PER_PAGE: Duration = Duration::from_secs(2);

/// Minimum interval between requested listings, per page.
const MIN_INTERVAL_PER_PAGE: Duration = Duration::from_millis(150);

/// Attempts for each page after the first. A listing that started over after every failed page
/// might never complete while other programs list too.
const MAX_PAGE_ATTEMPTS: u32 = 5;
const INITIAL_PAGE_BACKOFF: Duration = Duration::from_millis(100);
const MAX_PAGE_BACKOFF: Duration = Duration::from_secs(2);

/// Lists all shards of the `known` streams and, with [`StreamSource::Table`], of all later streams.
/// Without a known stream, it lists the table's newest stream. The listing is empty if the table
/// has no stream.
pub async fn list_streams(
    streams: &dyn Streams,
    source: &StreamSource,
    known: &BTreeSet<StreamLabel>,
    rng: &JitterRng,
) -> Result<Listing, StreamError> {
    let started = Instant::now();
    let mut listing = Listing {
        streams: BTreeMap::new(),
        replaced_by: None,
        started,
        started_at: None,
        ended: started,
        pages: 0,
    };
    let mut labels = known.clone();
    if let StreamSource::Stream(stream) = source {
        labels = BTreeSet::from([stream.clone()]);
    }
    for label in &labels {
        list_stream(streams, label, &mut listing, rng).await?;
    }
    if listing.newest().is_some_and(|(_, newest)| newest.is_open) {
        return Ok(listing);
    }
    // Only a disabled stream can have a successor.
    let only_later = |all: Vec<StreamLabel>| -> BTreeSet<_> {
        all.into_iter().filter(|it| labels.first().is_none_or(|oldest| it > oldest)).collect()
    };
    match source {
        StreamSource::Table => {
            let mut later = match streams.list().await {
                // The table was deleted. Its remaining records can be read for 24 hours.
                Err(error) if error.kind == StreamErrorKind::NotFound && !labels.is_empty() => {
                    BTreeSet::new()
                }
                all => only_later(all?),
            };
            if labels.is_empty() {
                later = later.pop_last().into_iter().collect();
            }
            for label in later.difference(&labels) {
                list_stream(streams, label, &mut listing, rng).await?;
            }
        }
        // The successor only improves a condition message, so a missing permission is no error.
        StreamSource::Stream(_) => {
            listing.replaced_by =
                streams.list().await.ok().and_then(|all| only_later(all).pop_last());
        }
    }
    Ok(listing)
}

/// Adds one stream to the listing, page by page.
async fn list_stream(
    streams: &dyn Streams,
    label: &StreamLabel,
    listing: &mut Listing,
    rng: &JitterRng,
) -> Result<(), StreamError> {
    let mut description: Option<StreamDescription> = None;
    let mut after: Option<ShardId> = None;
    loop {
        let max_attempts = if listing.pages == 0 { 1 } else { MAX_PAGE_ATTEMPTS };
        let page = match describe_page(streams, label, after.as_ref(), max_attempts, rng).await {
            Ok(page) => page,
            Err(error) if error.kind != StreamErrorKind::NotFound => return Err(error),
            // The stream counts as deleted only if its first page is not found. If a later page is
            // not found, the whole listing is repeated.
            Err(error) => match error.service_time.filter(|_| description.is_none()) {
                Some(now) => {
                    listing.record_response(now);
                    listing.streams.insert(label.clone(), StreamDescription::deleted());
                    return Ok(());
                }
                None => return Err(StreamError { kind: StreamErrorKind::Unavailable, ..error }),
            },
        };
        listing.pages += 1;
        listing.record_response(page.service_time);
        match &mut description {
            Some(description) => description.add(&page.shards),
            None => description = Some(StreamDescription::new(&page)),
        }
        after = page.next_page.filter(|_| !fault!(ListingReadsFirstPageOnly));
        if after.is_none() {
            break;
        }
    }
    listing.streams.extend(description.map(|description| (label.clone(), description)));
    Ok(())
}

/// Requests one page, and retries errors that can pass by themselves.
async fn describe_page(
    streams: &dyn Streams,
    label: &StreamLabel,
    after: Option<&ShardId>,
    max_attempts: u32,
    rng: &JitterRng,
) -> Result<StreamPage, StreamError> {
    let mut backoff = Backoff::new(INITIAL_PAGE_BACKOFF, MAX_PAGE_BACKOFF);
    let mut result = streams.describe(label, ShardFilter::All, after).await;
    for _ in 1..max_attempts {
        if !matches!(&result, Err(error) if error.kind.is_retryable()) {
            break;
        }
        sleep(backoff.next_wait(rng)).await;
        result = streams.describe(label, ShardFilter::All, after).await;
    }
    result
}

/// Lists shards in the background, and holds the newest listing.
#[derive(Debug)]
pub struct ShardLister {
    requested: Notify,
    /// The newest listing, and the number of listings before it.
    newest: Mutex<(u64, Arc<Listing>)>,
    /// Notified after each listing. A watch channel would wake its receivers in random order, which
    /// makes simulations unrepeatable.
    published: Notify,
}

/// Parameters of [`ShardLister::run`].
#[derive(Debug)]
pub struct ListerParams<'a> {
    pub streams: &'a RateLimitedStreams,
    pub source: &'a StreamSource,
    /// Name of the streams in condition messages.
    pub stream_name: &'a str,
    pub health: &'a Health,
    pub telemetry: &'a NotifierTelemetry,
    pub rng: &'a JitterRng,
}

impl ShardLister {
    pub fn new(first: Listing) -> Self {
        Self {
            requested: Notify::new(),
            newest: Mutex::new((0, Arc::new(first))),
            published: Notify::new(),
        }
    }

    /// Requests a listing now.
    pub fn request(&self) {
        self.requested.notify_one();
    }

    /// The newest listing.
    pub fn latest(&self) -> Arc<Listing> {
        self.latest_numbered().1
    }

    /// The newest listing, and the number of listings before it.
    pub fn latest_numbered(&self) -> (u64, Arc<Listing>) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a listing with a number above `observed`.
    pub async fn wait_newer(&self, observed: u64) -> (u64, Arc<Listing>) {
        loop {
            // Registers before it reads the newest listing, so that it misses no listing in
            // between.
            let published = self.published.notified();
            let (number, newest) = self.latest_numbered();
            if number > observed {
                return (number, newest);
            }
            published.await;
        }
    }

    /// Requests a listing, and waits for the next one that completes.
    pub async fn refresh(&self) -> Arc<Listing> {
        let (observed, _) = self.latest_numbered();
        self.request();
        self.wait_newer(observed).await.1
    }

    fn publish(&self, listing: Listing) {
        {
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            *newest = (newest.0 + 1, Arc::new(listing));
        }
        self.published.notify_waiters();
    }

    /// Lists periodically and on request until the future is dropped.
    pub async fn run(&self, params: ListerParams<'_>) -> Infallible {
        let ListerParams { streams, source, stream_name, health, telemetry, rng } = params;
        let mut failures = FailureTracker::new(MAX_RETRY_WAIT);
        loop {
            let interval = LISTING_INTERVAL.max(LISTING_INTERVAL_PER_PAGE * self.latest().pages);
            tokio::select! {
                biased;
                () = self.requested.notified() => {}
                () = sleep(interval.mul_f64(0.75 + rng.fraction() / 2.0)) => {}
            }
            streams.report_poll_rate();
            let (known, deleted) = split_deleted(&self.latest());
            loop {
                match list_streams(streams, source, &known, rng).await {
                    Ok(mut listing) => {
                        listing.streams.extend(deleted);
                        health.clear(&Component::Stream);
                        failures.record_success();
                        self.publish(listing);
                        break;
                    }
                    Err(error) => {
                        telemetry.request_failed(&error);
                        if let Some(problem) =
                            problems::request_failed(stream_name, &error, &mut failures)
                        {
                            health.set_problem(Component::Stream, problem);
                        }
                        sleep(failures.next_wait(rng)).await;
                    }
                }
            }
            // Even frequent requests leave half of the listing quota to other notifiers.
            sleep(MIN_INTERVAL_PER_PAGE * self.latest().pages).await;
        }
    }
}

/// Splits the streams into those to describe again, and deleted ones that need no further request.
fn split_deleted(
    listing: &Listing,
) -> (BTreeSet<StreamLabel>, BTreeMap<StreamLabel, StreamDescription>) {
    let newest = listing.newest().map(|(label, _)| label);
    let streams = listing.streams.iter();
    let (deleted, known): (Vec<_>, Vec<_>) =
        streams.partition(|(label, stream)| stream.is_deleted() && Some(*label) != newest);
    let deleted = deleted.into_iter().map(|(label, stream)| (label.clone(), stream.clone()));
    (known.into_iter().map(|(label, _)| label.clone()).collect(), deleted.collect())
}
