//! Asks for the children of a shard that is read to its end: a few times in quick succession, because
//! a description may be behind, then now and then. The last shard of a disabled stream never has any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::model::ShardId;
use crate::streams::context::ConsumerContext;
use crate::streams::listing::shard_lister::ShardLister;
use crate::streams::problems;
use crate::streams::retention::may_be_trimmed;
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::streams::service::streams::{Shard, ShardFilter, Streams};
use crate::telemetry::Component;
use crate::timing::{Backoff, FailureTracker};

/// A description may be behind for so long; where it is a whole listing, one may have begun too early.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
const MIN_ATTEMPTS: u32 = 2;
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

const SIBLING_DELAY: Duration = Duration::from_secs(3);
const LATE_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// What asking costs right now.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryLoad(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    /// For how many shards it is asked.
    shards: AtomicU32,
    /// Whether the service lists all others too, page by page.
    lists_all: AtomicBool,
}

impl DiscoveryLoad {
    fn start(&self) {
        self.0.shards.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(&self) {
        self.0.shards.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a listing of everything takes fewer calls, but more than one, or no more.
    fn prefers_full_listing(&self, sweeper: &ShardLister) -> bool {
        let pages = sweeper.latest().pages.max(1);
        let Counters { shards, lists_all } = &*self.0;
        shards.load(Ordering::Relaxed) > pages || pages > 1 && lists_all.load(Ordering::Relaxed)
    }
}

/// The children of `parent` as soon as they are described; none if they are not for some seconds.
pub async fn find_children(
    streams: &RateLimitedStreams,
    shared: &ConsumerContext,
    parent: &ShardId,
    asking: &DiscoveryLoad,
) -> Vec<Shard> {
    let sweeper = &shared.lister;
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    asking.start();
    let begun = Instant::now();
    let mut tries = 0;
    let found = loop {
        let found = match asking.prefers_full_listing(sweeper) {
            true => list_children(sweeper, parent).await,
            false => describe_children(streams, shared, parent, asking).await,
        };
        tries += 1;
        if !found.is_empty() || tries >= MIN_ATTEMPTS && begun.elapsed() >= DISCOVERY_TIMEOUT {
            break found;
        }
        sleep(backoff.next_wait(&shared.rng)).await;
    };
    asking.finish();
    found
}

/// The children of a shard of which one is known: another one may be described a little later.
pub async fn find_sibling(
    streams: &RateLimitedStreams,
    shared: &ConsumerContext,
    parent: &ShardId,
    asking: &DiscoveryLoad,
) -> Vec<Shard> {
    asking.start();
    sleep(SIBLING_DELAY).await;
    // What it does not find is left to the sweep, and where that is dear, all of it.
    let found = match asking.prefers_full_listing(&shared.lister) {
        true => Vec::new(),
        false => describe_children(streams, shared, parent, asking).await,
    };
    asking.finish();
    found
}

/// The children of a shard of which none is known for long; something must follow it as long as its
/// stream is open, and nobody reads that meanwhile.
pub async fn poll_for_children(
    streams: &RateLimitedStreams,
    shared: &ConsumerContext,
    parent: &ShardId,
    asking: &DiscoveryLoad,
) -> Vec<Shard> {
    let part = Component::Shard(parent.clone());
    let mut failing = FailureTracker::new(LATE_POLL_INTERVAL);
    asking.start();
    loop {
        sleep(LATE_POLL_INTERVAL.mul_f64(0.75 + shared.rng.fraction() / 2.0)).await;
        let newest = shared.lister.latest();
        // Once it is gone itself, nothing that is listed can follow it.
        let is_gone = !newest.has(parent) && may_be_trimmed(parent, shared.clock.now());
        let stream = newest.streams.get(&parent.stream);
        let is_open = !is_gone && stream.is_some_and(|stream| stream.is_open);
        let found = match newest.children(parent) {
            [] if is_open && !asking.prefers_full_listing(&shared.lister) => {
                describe_children(streams, shared, parent, asking).await
            }
            // The sweep was faster, or will be, or there will be none.
            _ => Vec::new(),
        };
        if !found.is_empty() || !is_open || !newest.children(parent).is_empty() {
            shared.health.clear(&part);
            asking.finish();
            return found;
        }
        if failing.record_failure() {
            let stream = parent.stream.arn(&shared.config.table);
            shared.health.set_problem(part.clone(), problems::no_child_shard(parent, &stream));
        }
    }
}

async fn describe_children(
    streams: &RateLimitedStreams,
    shared: &ConsumerContext,
    parent: &ShardId,
    asking: &DiscoveryLoad,
) -> Vec<Shard> {
    let mut children = Vec::new();
    let mut after = None;
    loop {
        let listed = ShardFilter::ChildrenOf(parent);
        let page = match streams.describe(&parent.stream, listed, after.as_ref()).await {
            Ok(page) => page,
            Err(error) => {
                shared.telemetry.retry(&error);
                return children;
            }
        };
        let is_ours = |it: &Shard| it.parent.as_ref() == Some(parent);
        let (ours, others): (Vec<_>, Vec<_>) = page.shards.into_iter().partition(is_ours);
        children.extend(ours);
        after = page.next_page;
        if after.is_none() {
            return children;
        }
        if !others.is_empty() {
            asking.0.lists_all.store(true, Ordering::Relaxed);
            return children;
        }
    }
}

async fn list_children(sweeper: &ShardLister, parent: &ShardId) -> Vec<Shard> {
    let listing = sweeper.refresh().await;
    let children = listing.children(parent).iter();
    children.map(|id| Shard { id: id.clone(), parent: Some(parent.clone()) }).collect()
}
