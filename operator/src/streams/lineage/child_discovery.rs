//! Asks for the children of a shard that is read to its end: a few times in quick succession, because
//! a description may be behind, then now and then. The last shard of a disabled stream never has any.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::model::ShardId;
use crate::streams::context::ConsumerContext;
use crate::streams::listing::shard_lister::Sweeper;
use crate::streams::problems;
use crate::streams::retention::may_be_gone;
use crate::streams::service::rate_limited::Calls;
use crate::streams::service::streams::{Listed, Shard, Streams};
use crate::telemetry::Part;
use crate::timing::{Backoff, Failing};

/// A description may be behind for so long; where it is a whole listing, one may have begun too early.
const ASKED_FOR: Duration = Duration::from_secs(5);
const LEAST_TRIES: u32 = 2;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

const BEFORE_ASKING_AGAIN: Duration = Duration::from_secs(3);
const BETWEEN_LATE_TRIES: Duration = Duration::from_secs(30);

/// What asking costs right now.
#[derive(Clone, Debug, Default)]
pub struct Asking(Arc<Costs>);

#[derive(Debug, Default)]
struct Costs {
    /// For how many shards it is asked.
    shards: AtomicU32,
    /// Whether the service lists all others too, page by page.
    lists_all: AtomicBool,
}

impl Asking {
    fn begin(&self) {
        self.0.shards.fetch_add(1, Ordering::Relaxed);
    }

    fn end(&self) {
        self.0.shards.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether a listing of everything takes fewer calls, but more than one, or no more.
    fn is_dear(&self, sweeper: &Sweeper) -> bool {
        let pages = sweeper.newest().pages.max(1);
        let Costs { shards, lists_all } = &*self.0;
        shards.load(Ordering::Relaxed) > pages || pages > 1 && lists_all.load(Ordering::Relaxed)
    }
}

/// The children of `parent` as soon as they are described; none if they are not for some seconds.
pub async fn ask(
    streams: &Calls,
    shared: &ConsumerContext,
    parent: &ShardId,
    asking: &Asking,
) -> Vec<Shard> {
    let sweeper = &shared.sweeper;
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    asking.begin();
    let begun = Instant::now();
    let mut tries = 0;
    let found = loop {
        let found = match asking.is_dear(sweeper) {
            true => listed(sweeper, parent).await,
            false => described(streams, shared, parent, asking).await,
        };
        tries += 1;
        if !found.is_empty() || tries >= LEAST_TRIES && begun.elapsed() >= ASKED_FOR {
            break found;
        }
        sleep(backoff.next(&shared.random)).await;
    };
    asking.end();
    found
}

/// The children of a shard of which one is known: another one may be described a little later.
pub async fn ask_again(
    streams: &Calls,
    shared: &ConsumerContext,
    parent: &ShardId,
    asking: &Asking,
) -> Vec<Shard> {
    asking.begin();
    sleep(BEFORE_ASKING_AGAIN).await;
    // What it does not find is left to the sweep, and where that is dear, all of it.
    let found = match asking.is_dear(&shared.sweeper) {
        true => Vec::new(),
        false => described(streams, shared, parent, asking).await,
    };
    asking.end();
    found
}

/// The children of a shard of which none is known for long; something must follow it as long as its
/// stream is open, and nobody reads that meanwhile.
pub async fn ask_on(
    streams: &Calls,
    shared: &ConsumerContext,
    parent: &ShardId,
    asking: &Asking,
) -> Vec<Shard> {
    let part = Part::Shard(parent.clone());
    let mut failing = Failing::new(BETWEEN_LATE_TRIES);
    asking.begin();
    loop {
        sleep(BETWEEN_LATE_TRIES.mul_f64(0.75 + shared.random.fraction() / 2.0)).await;
        let newest = shared.sweeper.newest();
        // Once it is gone itself, nothing that is listed can follow it.
        let is_gone = !newest.has(parent) && may_be_gone(parent, shared.clock.now());
        let stream = newest.streams.get(&parent.stream);
        let is_open = !is_gone && stream.is_some_and(|stream| stream.is_open);
        let found = match newest.children(parent) {
            [] if is_open && !asking.is_dear(&shared.sweeper) => {
                described(streams, shared, parent, asking).await
            }
            // The sweep was faster, or will be, or there will be none.
            _ => Vec::new(),
        };
        if !found.is_empty() || !is_open || !newest.children(parent).is_empty() {
            shared.health.well(&part);
            asking.end();
            return found;
        }
        if failing.has_lasted() {
            let stream = parent.stream.arn(&shared.config.table);
            shared.health.troubled(part.clone(), problems::childless(parent, &stream));
        }
    }
}

async fn described(
    streams: &Calls,
    shared: &ConsumerContext,
    parent: &ShardId,
    asking: &Asking,
) -> Vec<Shard> {
    let mut children = Vec::new();
    let mut after = None;
    loop {
        let listed = Listed::ChildrenOf(parent);
        let page = match streams.describe(&parent.stream, listed, after.as_ref()).await {
            Ok(page) => page,
            Err(error) => {
                shared.telemetry.retrying(&error);
                return children;
            }
        };
        let is_ours = |it: &Shard| it.parent.as_ref() == Some(parent);
        let (ours, others): (Vec<_>, Vec<_>) = page.shards.into_iter().partition(is_ours);
        children.extend(ours);
        after = page.next;
        if after.is_none() {
            return children;
        }
        if !others.is_empty() {
            asking.0.lists_all.store(true, Ordering::Relaxed);
            return children;
        }
    }
}

async fn listed(sweeper: &Sweeper, parent: &ShardId) -> Vec<Shard> {
    let listing = sweeper.next().await;
    let children = listing.children(parent).iter();
    children.map(|id| Shard { id: id.clone(), parent: Some(parent.clone()) }).collect()
}
