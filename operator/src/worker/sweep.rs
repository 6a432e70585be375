//! Lists the shards of every stream that is read: every so often, and at once when somebody asks.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use super::calls::Calls;
use super::trouble::{self, LONGEST_WAIT};
use crate::backoff::{Failing, Random};
use crate::record::{ShardId, StreamLabel};
use crate::stream::{Described, Follow, Listed, Listing, StreamError, StreamErrorKind, Streams};
use crate::telemetry::{Health, NotifierTelemetry, Part};

/// A listing nobody asked for: shards are found by their parents' end, this is for surprises.
const EVERY: Duration = Duration::from_secs(30);

/// Or rarer, where a listing has many pages: it takes a sixteenth of what may be asked.
const EVERY_PER_PAGE: Duration = Duration::from_secs(2);

/// Lists all shards of the streams that are `known` and, with [`Follow::Table`], of those that came
/// after them; none at all if the table has none. Without a known one, of the newest.
pub async fn list<S: Streams>(
    streams: &S,
    follow: &Follow,
    known: &BTreeSet<StreamLabel>,
) -> Result<Listing, StreamError> {
    let mut listing = Listing {
        streams: BTreeMap::new(),
        replaced_by: None,
        begun_at: None,
        ended_at: None,
        pages: 0,
    };
    let mut labels = known.clone();
    if let Follow::Stream(stream) = follow {
        labels = BTreeSet::from([stream.clone()]);
    }
    for label in &labels {
        describe(streams, label, &mut listing).await?;
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
            let mut later = later(streams.streams().await?);
            if labels.is_empty() {
                later = later.pop_last().into_iter().collect();
            }
            for label in later.difference(&labels) {
                describe(streams, label, &mut listing).await?;
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
async fn describe<S: Streams>(
    streams: &S,
    label: &StreamLabel,
    listing: &mut Listing,
) -> Result<(), StreamError> {
    let mut described: Option<Described> = None;
    let mut after: Option<ShardId> = None;
    loop {
        let page = match streams.describe(label, Listed::All, after.as_ref()).await {
            Ok(page) => page,
            Err(error) if error.kind == StreamErrorKind::NotFound => {
                listing.streams.insert(label.clone(), Described::gone());
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        listing.pages += 1;
        listing.begun_at = listing.begun_at.or(Some(page.service_time));
        listing.ended_at = Some(page.service_time);
        match &mut described {
            Some(described) => described.add(&page.shards),
            None => described = Some(Described::new(&page)),
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    listing.streams.extend(described.map(|described| (label.clone(), described)));
    Ok(())
}

/// Keeps the newest listing.
#[derive(Debug)]
pub struct Sweeper {
    ask: Notify,
    newest: watch::Sender<Arc<Listing>>,
}

/// What a sweeper asks, and whom it tells.
#[derive(Debug)]
pub struct Sweep<'a, S> {
    pub streams: &'a Calls<S>,
    pub follow: &'a Follow,
    /// The table's ARN, named in conditions.
    pub table: &'a str,
    pub health: &'a Health,
    pub telemetry: &'a NotifierTelemetry,
    pub random: &'a Random,
}

impl Sweeper {
    /// A sweeper that begins with this listing.
    pub fn new(first: Listing) -> Self {
        Self { ask: Notify::new(), newest: watch::Sender::new(Arc::new(first)) }
    }

    /// Asks for a listing now.
    pub fn ask(&self) {
        self.ask.notify_one();
    }

    /// The newest listing, and those to come.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Listing>> {
        self.newest.subscribe()
    }

    /// The newest listing.
    pub fn newest(&self) -> Arc<Listing> {
        self.newest.borrow().clone()
    }

    /// Lists for ever.
    pub async fn run<S: Streams>(&self, sweep: Sweep<'_, S>) -> Infallible {
        let Sweep { streams, follow, table, health, telemetry, random } = sweep;
        let mut failing = Failing::new(LONGEST_WAIT);
        loop {
            let pause = EVERY.max(EVERY_PER_PAGE * self.newest().pages);
            tokio::select! {
                biased;
                () = self.ask.notified() => {}
                () = sleep(pause.mul_f64(0.75 + random.fraction() / 2.0)) => {}
            }
            let (known, gone) = known(&self.newest());
            loop {
                match list(streams, follow, &known).await {
                    Ok(mut listing) => {
                        listing.streams.extend(gone);
                        health.well(&Part::Stream);
                        failing.worked();
                        self.newest.send_replace(Arc::new(listing));
                        break;
                    }
                    Err(error) => {
                        telemetry.retrying(&error);
                        if let Some(trouble) = trouble::stream(table, &error, &mut failing) {
                            health.troubled(Part::Stream, trouble);
                        }
                        sleep(failing.wait(random)).await;
                    }
                }
            }
            streams.tell_pace();
        }
    }
}

/// The streams to describe again, and those before them that are gone for good.
fn known(listing: &Listing) -> (BTreeSet<StreamLabel>, BTreeMap<StreamLabel, Described>) {
    let newest = listing.newest().map(|(label, _)| label);
    let streams = listing.streams.iter();
    let (gone, known): (Vec<_>, Vec<_>) =
        streams.partition(|(label, stream)| stream.form.is_none() && Some(*label) != newest);
    let gone = gone.into_iter().map(|(label, stream)| (label.clone(), stream.clone()));
    (known.into_iter().map(|(label, _)| label.clone()).collect(), gone.collect())
}

/// Waits for a listing that was not seen yet.
pub async fn newest(listings: &mut watch::Receiver<Arc<Listing>>) -> Arc<Listing> {
    // The sweeper lives as long as those who listen, so that this cannot fail.
    let _ = listings.changed().await;
    listings.borrow_and_update().clone()
}
