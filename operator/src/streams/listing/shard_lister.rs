//! Lists the shards of every stream that is read: every so often, and at once when somebody asks.

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

/// A listing nobody asked for: shards are found by their parents' end, this is for surprises.
const LISTING_INTERVAL: Duration = Duration::from_secs(30);

/// Or rarer, where a listing has many pages: it takes a sixteenth of what may be asked.
const LISTING_INTERVAL_PER_PAGE: Duration = Duration::from_secs(2);

/// How long one that was asked for waits after the one before it.
const MIN_INTERVAL_PER_PAGE: Duration = Duration::from_millis(150);

/// A page that fails is asked for again so often, unless it is the first one: what was listed is not
/// thrown away, which where others list too would be for ever.
const MAX_PAGE_ATTEMPTS: u32 = 5;
const INITIAL_PAGE_BACKOFF: Duration = Duration::from_millis(100);
const MAX_PAGE_BACKOFF: Duration = Duration::from_secs(2);

/// Lists all shards of the streams that are `known` and, with [`StreamSource::Table`], of those that came
/// after them; none at all if the table has none. Without a known one, of the newest.
pub async fn list_streams(
    streams: &dyn Streams,
    follow: &StreamSource,
    known: &BTreeSet<StreamLabel>,
    random: &JitterRng,
) -> Result<Listing, StreamError> {
    let begun = Instant::now();
    let mut listing = Listing {
        streams: BTreeMap::new(),
        replaced_by: None,
        started: begun,
        started_at: None,
        ended: begun,
        pages: 0,
    };
    let mut labels = known.clone();
    if let StreamSource::Stream(stream) = follow {
        labels = BTreeSet::from([stream.clone()]);
    }
    for label in &labels {
        list_stream(streams, label, &mut listing, random).await?;
    }
    if listing.newest().is_some_and(|(_, newest)| newest.is_open) {
        return Ok(listing);
    }
    // Only a stream that was disabled has another after it.
    let later = |all: Vec<StreamLabel>| -> BTreeSet<_> {
        all.into_iter().filter(|it| labels.first().is_none_or(|oldest| it > oldest)).collect()
    };
    match follow {
        StreamSource::Table => {
            let mut later = match streams.list().await {
                // The table is deleted, and what it left can be read for a day.
                Err(error) if error.kind == StreamErrorKind::NotFound && !labels.is_empty() => {
                    BTreeSet::new()
                }
                all => later(all?),
            };
            if labels.is_empty() {
                later = later.pop_last().into_iter().collect();
            }
            for label in later.difference(&labels) {
                list_stream(streams, label, &mut listing, random).await?;
            }
        }
        // To name it is a courtesy: the right may be missing.
        StreamSource::Stream(_) => {
            listing.replaced_by = streams.list().await.ok().and_then(|all| later(all).pop_last());
        }
    }
    Ok(listing)
}

/// Adds one stream to the listing, page by page.
async fn list_stream(
    streams: &dyn Streams,
    label: &StreamLabel,
    listing: &mut Listing,
    random: &JitterRng,
) -> Result<(), StreamError> {
    let mut described: Option<StreamDescription> = None;
    let mut after: Option<ShardId> = None;
    loop {
        let tries = if listing.pages == 0 { 1 } else { MAX_PAGE_ATTEMPTS };
        let page = match describe_page(streams, label, after.as_ref(), tries, random).await {
            Ok(page) => page,
            Err(error) if error.kind != StreamErrorKind::NotFound => return Err(error),
            // In the middle of a listing it is asked once more.
            Err(error) => match error.service_time.filter(|_| described.is_none()) {
                Some(now) => {
                    listing.record_response(now);
                    listing.streams.insert(label.clone(), StreamDescription::trimmed());
                    return Ok(());
                }
                None => return Err(StreamError { kind: StreamErrorKind::Unavailable, ..error }),
            },
        };
        listing.pages += 1;
        listing.record_response(page.service_time);
        match &mut described {
            Some(described) => described.add(&page.shards),
            None => described = Some(StreamDescription::new(&page)),
        }
        after = page.next_page.filter(|_| !fault!(ListingReadsFirstPageOnly));
        if after.is_none() {
            break;
        }
    }
    listing.streams.extend(described.map(|described| (label.clone(), described)));
    Ok(())
}

/// One page, asked for so often where its failure may pass by itself.
async fn describe_page(
    streams: &dyn Streams,
    label: &StreamLabel,
    after: Option<&ShardId>,
    tries: u32,
    random: &JitterRng,
) -> Result<StreamPage, StreamError> {
    let mut backoff = Backoff::new(INITIAL_PAGE_BACKOFF, MAX_PAGE_BACKOFF);
    let mut answer = streams.describe(label, ShardFilter::All, after).await;
    for _ in 1..tries {
        if !matches!(&answer, Err(error) if error.kind.is_retryable()) {
            break;
        }
        sleep(backoff.next_wait(random)).await;
        answer = streams.describe(label, ShardFilter::All, after).await;
    }
    answer
}

/// Keeps the newest listing.
#[derive(Debug)]
pub struct ShardLister {
    requested: Notify,
    /// The newest listing, and how many there were before it.
    newest: Mutex<(u64, Arc<Listing>)>,
    /// Told when there is a newer one; not a watch channel, which wakes those who wait in random
    /// order.
    published: Notify,
}

/// What a sweeper asks, and whom it tells.
#[derive(Debug)]
pub struct ListerParams<'a> {
    pub streams: &'a RateLimitedStreams,
    pub follow: &'a StreamSource,
    /// What is read, as conditions name it.
    pub stream: &'a str,
    pub health: &'a Health,
    pub telemetry: &'a NotifierTelemetry,
    pub random: &'a JitterRng,
}

impl ShardLister {
    /// A sweeper that begins with this listing.
    pub fn new(first: Listing) -> Self {
        Self {
            requested: Notify::new(),
            newest: Mutex::new((0, Arc::new(first))),
            published: Notify::new(),
        }
    }

    /// Asks for a listing now.
    pub fn request(&self) {
        self.requested.notify_one();
    }

    /// The newest listing.
    pub fn latest(&self) -> Arc<Listing> {
        self.latest_numbered().1
    }

    /// The newest listing, and how many there were before it.
    pub fn latest_numbered(&self) -> (u64, Arc<Listing>) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a listing after that of this number.
    pub async fn wait_newer(&self, seen: u64) -> (u64, Arc<Listing>) {
        loop {
            // Asked for before looking, so that what happens in between is not missed.
            let listed = self.published.notified();
            let (number, newest) = self.latest_numbered();
            if number > seen {
                return (number, newest);
            }
            listed.await;
        }
    }

    /// Asks for a listing now, and waits for it.
    pub async fn refresh(&self) -> Arc<Listing> {
        let (seen, _) = self.latest_numbered();
        self.request();
        self.wait_newer(seen).await.1
    }

    fn publish(&self, listing: Listing) {
        {
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            *newest = (newest.0 + 1, Arc::new(listing));
        }
        self.published.notify_waiters();
    }

    /// Lists for ever.
    pub async fn run(&self, sweep: ListerParams<'_>) -> Infallible {
        let ListerParams { streams, follow, stream, health, telemetry, random } = sweep;
        let mut failing = FailureTracker::new(MAX_RETRY_WAIT);
        loop {
            let pause = LISTING_INTERVAL.max(LISTING_INTERVAL_PER_PAGE * self.latest().pages);
            tokio::select! {
                biased;
                () = self.requested.notified() => {}
                () = sleep(pause.mul_f64(0.75 + random.fraction() / 2.0)) => {}
            }
            streams.report_poll_rate();
            let (known, gone) = split_trimmed(&self.latest());
            loop {
                match list_streams(streams, follow, &known, random).await {
                    Ok(mut listing) => {
                        listing.streams.extend(gone);
                        health.clear(&Component::Stream);
                        failing.record_success();
                        self.publish(listing);
                        break;
                    }
                    Err(error) => {
                        telemetry.retry(&error);
                        if let Some(trouble) =
                            problems::request_failed(stream, &error, &mut failing)
                        {
                            health.set_problem(Component::Stream, trouble);
                        }
                        sleep(failing.next_wait(random)).await;
                    }
                }
            }
            // However many ask: half of what may be asked is left for others.
            sleep(MIN_INTERVAL_PER_PAGE * self.latest().pages).await;
        }
    }
}

/// The streams to describe again, and those before them that are gone for good.
fn split_trimmed(
    listing: &Listing,
) -> (BTreeSet<StreamLabel>, BTreeMap<StreamLabel, StreamDescription>) {
    let newest = listing.newest().map(|(label, _)| label);
    let streams = listing.streams.iter();
    let (gone, known): (Vec<_>, Vec<_>) =
        streams.partition(|(label, stream)| stream.is_trimmed() && Some(*label) != newest);
    let gone = gone.into_iter().map(|(label, stream)| (label.clone(), stream.clone()));
    (known.into_iter().map(|(label, _)| label.clone()).collect(), gone.collect())
}
