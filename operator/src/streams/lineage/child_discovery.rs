//! Finds the children of a finished shard. It polls in quick succession at first, because
//! DescribeStream can be stale, and every 30 s after that. The last shard of a disabled stream
//! never has children.

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

/// How long DescribeStream can be stale.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Minimum number of attempts. A full listing can have begun before the shard was finished, so one
/// is not enough.
const MIN_ATTEMPTS: u32 = 2;
const INITIAL_BACKOFF: Duration = Duration::from_millis(50);
const MAX_BACKOFF: Duration = Duration::from_secs(1);

const SIBLING_DELAY: Duration = Duration::from_secs(3);
const LATE_POLL_INTERVAL: Duration = Duration::from_secs(30);

/// Number and cost of the requests for children that are in progress.
#[derive(Clone, Debug, Default)]
pub struct DiscoveryLoad(Arc<Counters>);

#[derive(Debug, Default)]
struct Counters {
    /// Shards whose children are requested.
    shards: AtomicU32,
    /// Whether the service ignores the filter, and lists all other shards too, page by page.
    lists_all: AtomicBool,
}

impl DiscoveryLoad {
    fn start(&self) {
        self.0.shards.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(&self) {
        self.0.shards.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a full listing needs fewer requests than one request for each shard. It also does if
    /// each of those requests lists everything, on more than one page.
    fn prefers_full_listing(&self, lister: &ShardLister) -> bool {
        let pages = lister.latest().pages.max(1);
        let Counters { shards, lists_all } = &*self.0;
        shards.load(Ordering::Relaxed) > pages || pages > 1 && lists_all.load(Ordering::Relaxed)
    }
}

/// Returns the children of `parent` as soon as the service shows one. Returns none if it shows none
/// for 5 s.
pub async fn find_children(
    streams: &RateLimitedStreams,
    context: &ConsumerContext,
    parent: &ShardId,
    load: &DiscoveryLoad,
) -> Vec<Shard> {
    let lister = &context.lister;
    let mut backoff = Backoff::new(INITIAL_BACKOFF, MAX_BACKOFF);
    load.start();
    let started = Instant::now();
    let mut attempts = 0;
    let children = loop {
        let children = match load.prefers_full_listing(lister) {
            true => list_children(lister, parent).await,
            false => describe_children(streams, context, parent, load).await,
        };
        attempts += 1;
        if !children.is_empty()
            || attempts >= MIN_ATTEMPTS && started.elapsed() >= DISCOVERY_TIMEOUT
        {
            break children;
        }
        sleep(backoff.next_wait(&context.rng)).await;
    };
    load.finish();
    children
}

/// Returns the children of a shard of which one child is known. The service can show the other
/// child of a split a little later.
pub async fn find_sibling(
    streams: &RateLimitedStreams,
    context: &ConsumerContext,
    parent: &ShardId,
    load: &DiscoveryLoad,
) -> Vec<Shard> {
    load.start();
    sleep(SIBLING_DELAY).await;
    // The periodic listing finds a sibling that appears even later. If requests are expensive, it
    // finds every sibling.
    let children = match load.prefers_full_listing(&context.lister) {
        true => Vec::new(),
        false => describe_children(streams, context, parent, load).await,
    };
    load.finish();
    children
}

/// Polls for the children of a shard that has had none for some time. Returns once one is known, or
/// the stream is no longer open. While the stream is open a child must exist, and it is not read,
/// so a problem is reported after 60 s.
pub async fn poll_for_children(
    streams: &RateLimitedStreams,
    context: &ConsumerContext,
    parent: &ShardId,
    load: &DiscoveryLoad,
) -> Vec<Shard> {
    let component = Component::Shard(parent.clone());
    let mut failures = FailureTracker::new(LATE_POLL_INTERVAL);
    load.start();
    loop {
        sleep(LATE_POLL_INTERVAL.mul_f64(0.75 + context.rng.fraction() / 2.0)).await;
        let newest = context.lister.latest();
        // Once the parent itself is trimmed, no listed shard can be its child.
        let is_trimmed = !newest.has(parent) && may_be_trimmed(parent, context.clock.now());
        let stream = newest.streams.get(&parent.stream);
        let is_open = !is_trimmed && stream.is_some_and(|stream| stream.is_open);
        let children = match newest.children(parent) {
            [] if is_open && !load.prefers_full_listing(&context.lister) => {
                describe_children(streams, context, parent, load).await
            }
            // A listing already shows the children, or the next one will, or there will be none.
            _ => Vec::new(),
        };
        if !children.is_empty() || !is_open || !newest.children(parent).is_empty() {
            context.health.clear(&component);
            load.finish();
            return children;
        }
        if failures.record_failure() {
            let stream = parent.stream.arn(&context.config.table);
            let problem = problems::no_child_shard(parent, &stream);
            context.health.set_problem(component.clone(), problem);
        }
    }
}

/// Requests the children of one shard. Returns those found so far after an error.
async fn describe_children(
    streams: &RateLimitedStreams,
    context: &ConsumerContext,
    parent: &ShardId,
    load: &DiscoveryLoad,
) -> Vec<Shard> {
    let mut children = Vec::new();
    let mut after = None;
    loop {
        let filter = ShardFilter::ChildrenOf(parent);
        let page = match streams.describe(&parent.stream, filter, after.as_ref()).await {
            Ok(page) => page,
            Err(error) => {
                context.telemetry.request_failed(&error);
                return children;
            }
        };
        let is_child = |it: &Shard| it.parent.as_ref() == Some(parent);
        let (found, others): (Vec<_>, Vec<_>) = page.shards.into_iter().partition(is_child);
        children.extend(found);
        after = page.next_page;
        if after.is_none() {
            return children;
        }
        if !others.is_empty() {
            load.0.lists_all.store(true, Ordering::Relaxed);
            return children;
        }
    }
}

async fn list_children(lister: &ShardLister, parent: &ShardId) -> Vec<Shard> {
    let listing = lister.refresh().await;
    let children = listing.children(parent).iter();
    children.map(|id| Shard { id: id.clone(), parent: Some(parent.clone()) }).collect()
}
