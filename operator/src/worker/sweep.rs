//! Lists a stream's shards: every so often, and at once when somebody asks.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use super::trouble::{self, CALL_LIMIT, LONGEST_WAIT, late};
use crate::backoff::{Failing, Random};
use crate::record::{KeyNames, ShardId, UnixSeconds};
use crate::stream::{Shard, StreamError, Streams, ViewType};
use crate::telemetry::{Health, NotifierTelemetry, Part};

/// A listing nobody asked for: shards are found by their parents' end, this is for surprises.
const EVERY: Duration = Duration::from_secs(30);

/// A whole listing.
#[derive(Clone, Debug)]
pub struct Listing {
    /// Every shard.
    pub shards: Vec<Shard>,
    /// Which images records carry.
    pub view: ViewType,
    /// The table's key attributes.
    pub keys: KeyNames,
    /// The service's clock when listing began.
    pub service_time: UnixSeconds,
}

impl Listing {
    /// Whether a shard is in it.
    pub fn has(&self, id: &ShardId) -> bool {
        self.shards.iter().any(|shard| shard.id == *id)
    }

    /// Every shard without children in it: those that are open, and the last of a stream that is
    /// disabled.
    pub fn leaves(&self) -> impl Iterator<Item = &ShardId> {
        let parents: BTreeSet<_> =
            self.shards.iter().filter_map(|shard| shard.parent.as_ref()).collect();
        self.shards.iter().map(|shard| &shard.id).filter(move |id| !parents.contains(id))
    }

    /// A shard's children in it.
    pub fn children(&self, id: &ShardId) -> impl Iterator<Item = &ShardId> {
        let children = self.shards.iter().filter(move |shard| shard.parent.as_ref() == Some(id));
        children.map(|shard| &shard.id)
    }
}

/// Lists all shards, page by page.
pub async fn list<S: Streams>(streams: &S) -> Result<Listing, StreamError> {
    let page = |after: Option<ShardId>| async move {
        timeout(CALL_LIMIT, streams.describe(after.as_ref()))
            .await
            .unwrap_or_else(|elapsed| Err(late("dynamodb:DescribeStream", elapsed)))
    };
    let first = page(None).await?;
    let mut listing = Listing {
        shards: first.shards,
        view: first.view,
        keys: first.keys,
        service_time: first.service_time,
    };
    let mut next = first.next;
    while let Some(after) = next {
        let following = page(Some(after)).await?;
        listing.shards.extend(following.shards);
        next = following.next;
    }
    Ok(listing)
}

/// Keeps the newest listing.
#[derive(Debug)]
pub struct Sweeper {
    ask: Notify,
    newest: watch::Sender<Arc<Listing>>,
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

    /// Lists for ever.
    pub async fn run<S: Streams>(
        &self,
        streams: &S,
        stream: &str,
        health: &Health,
        telemetry: &NotifierTelemetry,
        random: &Random,
    ) -> Infallible {
        let mut failing = Failing::new(LONGEST_WAIT);
        loop {
            tokio::select! {
                () = self.ask.notified() => {}
                () = sleep(EVERY.mul_f64(0.75 + random.fraction() / 2.0)) => {}
            }
            loop {
                match list(streams).await {
                    Ok(listing) => {
                        health.well(&Part::Stream);
                        failing.worked();
                        self.newest.send_replace(Arc::new(listing));
                        break;
                    }
                    Err(error) => {
                        telemetry.retrying(&error);
                        if let Some(trouble) = trouble::stream(stream, &error, &mut failing) {
                            health.troubled(Part::Stream, trouble);
                        }
                        sleep(failing.wait(random)).await;
                    }
                }
            }
        }
    }
}

/// Waits for a listing that was not seen yet.
pub async fn newest(listings: &mut watch::Receiver<Arc<Listing>>) -> Arc<Listing> {
    // The sweeper lives as long as those who listen, so that this cannot fail.
    let _ = listings.changed().await;
    listings.borrow_and_update().clone()
}
