//! Lists the shards of every stream that is read: every so often, and at once when somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use crate::model::{ShardId, StreamLabel};
use crate::streams::config::Follow;
use crate::streams::listing::{Described, Listing};
use crate::streams::problems;
use crate::streams::problems::LONGEST_WAIT;
use crate::streams::service::error::{StreamError, StreamErrorKind};
use crate::streams::service::rate_limited::Calls;
use crate::streams::service::streams::{Listed, StreamPage, Streams};
use crate::telemetry::{Health, NotifierTelemetry, Part};
use crate::timing::{Backoff, Failing, Random};

/// A listing nobody asked for: shards are found by their parents' end, this is for surprises.
const EVERY: Duration = Duration::from_secs(30);

/// Or rarer, where a listing has many pages: it takes a sixteenth of what may be asked.
const EVERY_PER_PAGE: Duration = Duration::from_secs(2);

/// How long one that was asked for waits after the one before it.
const PAUSE_PER_PAGE: Duration = Duration::from_millis(150);

/// A page that fails is asked for again so often, unless it is the first one: what was listed is not
/// thrown away, which where others list too would be for ever.
const PAGE_TRIES: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_PAGE_WAIT: Duration = Duration::from_secs(2);

/// Lists all shards of the streams that are `known` and, with [`Follow::Table`], of those that came
/// after them; none at all if the table has none. Without a known one, of the newest.
pub async fn list(
    streams: &dyn Streams,
    follow: &Follow,
    known: &BTreeSet<StreamLabel>,
    random: &Random,
) -> Result<Listing, StreamError> {
    let begun = Instant::now();
    let mut listing = Listing {
        streams: BTreeMap::new(),
        replaced_by: None,
        begun,
        begun_at: None,
        ended: begun,
        pages: 0,
    };
    let mut labels = known.clone();
    if let Follow::Stream(stream) = follow {
        labels = BTreeSet::from([stream.clone()]);
    }
    for label in &labels {
        describe(streams, label, &mut listing, random).await?;
    }
    if listing.newest().is_some_and(|(_, newest)| newest.is_open) {
        return Ok(listing);
    }
    // Only a stream that was disabled has another after it.
    let later = |all: Vec<StreamLabel>| -> BTreeSet<_> {
        all.into_iter().filter(|it| labels.first().is_none_or(|oldest| it > oldest)).collect()
    };
    match follow {
        Follow::Table => {
            let mut later = match streams.streams().await {
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
                describe(streams, label, &mut listing, random).await?;
            }
        }
        // To name it is a courtesy: the right may be missing.
        Follow::Stream(_) => {
            listing.replaced_by =
                streams.streams().await.ok().and_then(|all| later(all).pop_last());
        }
    }
    Ok(listing)
}

/// Adds one stream to the listing, page by page.
async fn describe(
    streams: &dyn Streams,
    label: &StreamLabel,
    listing: &mut Listing,
    random: &Random,
) -> Result<(), StreamError> {
    let mut described: Option<Described> = None;
    let mut after: Option<ShardId> = None;
    loop {
        let tries = if listing.pages == 0 { 1 } else { PAGE_TRIES };
        let page = match page(streams, label, after.as_ref(), tries, random).await {
            Ok(page) => page,
            Err(error) if error.kind != StreamErrorKind::NotFound => return Err(error),
            // In the middle of a listing it is asked once more.
            Err(error) => match error.service_time.filter(|_| described.is_none()) {
                Some(now) => {
                    listing.answered(now);
                    listing.streams.insert(label.clone(), Described::gone());
                    return Ok(());
                }
                None => return Err(StreamError { kind: StreamErrorKind::Unavailable, ..error }),
            },
        };
        listing.pages += 1;
        listing.answered(page.service_time);
        match &mut described {
            Some(described) => described.add(&page.shards),
            None => described = Some(Described::new(&page)),
        }
        after = page.next.filter(|_| !fault!(ListingReadsFirstPageOnly));
        if after.is_none() {
            break;
        }
    }
    listing.streams.extend(described.map(|described| (label.clone(), described)));
    Ok(())
}

/// One page, asked for so often where its failure may pass by itself.
async fn page(
    streams: &dyn Streams,
    label: &StreamLabel,
    after: Option<&ShardId>,
    tries: u32,
    random: &Random,
) -> Result<StreamPage, StreamError> {
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_PAGE_WAIT);
    let mut answer = streams.describe(label, Listed::All, after).await;
    for _ in 1..tries {
        if !matches!(&answer, Err(error) if error.kind.may_pass()) {
            break;
        }
        sleep(backoff.next(random)).await;
        answer = streams.describe(label, Listed::All, after).await;
    }
    answer
}

/// Keeps the newest listing.
#[derive(Debug)]
pub struct Sweeper {
    ask: Notify,
    /// The newest listing, and how many there were before it.
    newest: Mutex<(u64, Arc<Listing>)>,
    /// Told when there is a newer one; not a watch channel, which wakes those who wait in random
    /// order.
    listed: Notify,
}

/// What a sweeper asks, and whom it tells.
#[derive(Debug)]
pub struct Sweep<'a> {
    pub streams: &'a Calls,
    pub follow: &'a Follow,
    /// What is read, as conditions name it.
    pub stream: &'a str,
    pub health: &'a Health,
    pub telemetry: &'a NotifierTelemetry,
    pub random: &'a Random,
}

impl Sweeper {
    /// A sweeper that begins with this listing.
    pub fn new(first: Listing) -> Self {
        Self { ask: Notify::new(), newest: Mutex::new((0, Arc::new(first))), listed: Notify::new() }
    }

    /// Asks for a listing now.
    pub fn ask(&self) {
        self.ask.notify_one();
    }

    /// The newest listing.
    pub fn newest(&self) -> Arc<Listing> {
        self.numbered().1
    }

    /// The newest listing, and how many there were before it.
    pub fn numbered(&self) -> (u64, Arc<Listing>) {
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for a listing after that of this number.
    pub async fn after(&self, seen: u64) -> (u64, Arc<Listing>) {
        loop {
            // Asked for before looking, so that what happens in between is not missed.
            let listed = self.listed.notified();
            let (number, newest) = self.numbered();
            if number > seen {
                return (number, newest);
            }
            listed.await;
        }
    }

    /// Asks for a listing now, and waits for it.
    pub async fn next(&self) -> Arc<Listing> {
        let (seen, _) = self.numbered();
        self.ask();
        self.after(seen).await.1
    }

    fn found(&self, listing: Listing) {
        {
            let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
            *newest = (newest.0 + 1, Arc::new(listing));
        }
        self.listed.notify_waiters();
    }

    /// Lists for ever.
    pub async fn run(&self, sweep: Sweep<'_>) -> Infallible {
        let Sweep { streams, follow, stream, health, telemetry, random } = sweep;
        let mut failing = Failing::new(LONGEST_WAIT);
        loop {
            let pause = EVERY.max(EVERY_PER_PAGE * self.newest().pages);
            tokio::select! {
                biased;
                () = self.ask.notified() => {}
                () = sleep(pause.mul_f64(0.75 + random.fraction() / 2.0)) => {}
            }
            streams.tell_pace();
            let (known, gone) = known(&self.newest());
            loop {
                match list(streams, follow, &known, random).await {
                    Ok(mut listing) => {
                        listing.streams.extend(gone);
                        health.well(&Part::Stream);
                        failing.worked();
                        self.found(listing);
                        break;
                    }
                    Err(error) => {
                        telemetry.retrying(&error);
                        if let Some(trouble) = problems::stream(stream, &error, &mut failing) {
                            health.troubled(Part::Stream, trouble);
                        }
                        sleep(failing.wait(random)).await;
                    }
                }
            }
            // However many ask: half of what may be asked is left for others.
            sleep(PAUSE_PER_PAGE * self.newest().pages).await;
        }
    }
}

/// The streams to describe again, and those before them that are gone for good.
fn known(listing: &Listing) -> (BTreeSet<StreamLabel>, BTreeMap<StreamLabel, Described>) {
    let newest = listing.newest().map(|(label, _)| label);
    let streams = listing.streams.iter();
    let (gone, known): (Vec<_>, Vec<_>) =
        streams.partition(|(label, stream)| stream.is_gone() && Some(*label) != newest);
    let gone = gone.into_iter().map(|(label, stream)| (label.clone(), stream.clone()));
    (known.into_iter().map(|(label, _)| label.clone()).collect(), gone.collect())
}
