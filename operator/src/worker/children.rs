//! Asks for the children of a shard that is read to its end: a few times in quick succession, because
//! a description may be behind, then now and then. The last shard of a disabled stream never has any.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::calls::Calls;
use super::shard::Shared;
use super::sweep::Sweeper;
use super::trouble;
use crate::backoff::{Backoff, Failing};
use crate::record::ShardId;
use crate::stream::{Listed, Shard, Streams};
use crate::telemetry::Part;

const TRIES: u32 = 10;
const TRIES_OF_A_LISTING: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);

const BEFORE_ASKING_AGAIN: Duration = Duration::from_secs(3);
const BETWEEN_LATE_TRIES: Duration = Duration::from_secs(30);

/// How many shards' children are asked for right now.
#[derive(Clone, Debug, Default)]
pub struct Asking(Arc<AtomicU32>);

impl Asking {
    fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The children of `parent` as soon as they are described; none if they are not for some seconds.
pub async fn ask<S: Streams, C, G>(
    streams: &Calls<S>,
    shared: &Shared<C, G>,
    parent: &ShardId,
    asking: &Asking,
) -> Vec<Shard> {
    let sweeper = &shared.sweeper;
    let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
    asking.0.fetch_add(1, Ordering::Relaxed);
    let mut found = Vec::new();
    let mut tries = 0;
    while tries < TRIES {
        // A listing of everything takes fewer calls than asking for each, but more than one has.
        let is_crowded = asking.now() > sweeper.newest().pages.max(1);
        (found, tries) = if is_crowded {
            (listed(sweeper, parent).await, tries + TRIES_OF_A_LISTING)
        } else {
            (described(streams, shared, parent).await, tries + 1)
        };
        if !found.is_empty() {
            break;
        }
        sleep(backoff.next(&shared.random)).await;
    }
    asking.0.fetch_sub(1, Ordering::Relaxed);
    found
}

/// The children of a shard of which one is known: another one may be described a little later.
pub async fn ask_again<S: Streams, C, G>(
    streams: &Calls<S>,
    shared: &Shared<C, G>,
    parent: &ShardId,
    asking: &Asking,
) -> Vec<Shard> {
    let most = shared.sweeper.newest().pages.max(1);
    asking.0.fetch_add(1, Ordering::Relaxed);
    sleep(BEFORE_ASKING_AGAIN).await;
    // What it does not find is left to the sweep, and where many ask, all of it.
    let is_crowded = asking.now() > most;
    let found = if is_crowded { Vec::new() } else { described(streams, shared, parent).await };
    asking.0.fetch_sub(1, Ordering::Relaxed);
    found
}

/// The children of a shard of which none is known for long; something must follow it as long as its
/// stream is open, and nobody reads that meanwhile.
pub async fn ask_on<S: Streams, C, G>(
    streams: &Calls<S>,
    shared: &Shared<C, G>,
    parent: &ShardId,
) -> Vec<Shard> {
    let part = Part::Shard(parent.clone());
    let mut failing = Failing::new(BETWEEN_LATE_TRIES);
    loop {
        sleep(BETWEEN_LATE_TRIES.mul_f64(0.75 + shared.random.fraction() / 2.0)).await;
        let newest = shared.sweeper.newest();
        // Once it is not listed itself, nothing that is listed can follow it.
        let is_open = newest
            .streams
            .get(&parent.stream)
            .is_some_and(|stream| stream.is_open && stream.has(parent));
        let found = match newest.children(parent) {
            [] if is_open => described(streams, shared, parent).await,
            // The sweep was faster, or there will be none.
            _ => Vec::new(),
        };
        if !found.is_empty() || !is_open || !newest.children(parent).is_empty() {
            shared.health.well(&part);
            return found;
        }
        if failing.has_lasted() {
            let stream = parent.stream.arn(&shared.table);
            shared.health.troubled(part.clone(), trouble::childless(parent, &stream));
        }
    }
}

async fn described<S: Streams, C, G>(
    streams: &Calls<S>,
    shared: &Shared<C, G>,
    parent: &ShardId,
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
        children.extend(page.shards.into_iter().filter(|it| it.parent.as_ref() == Some(parent)));
        after = page.next;
        if after.is_none() {
            return children;
        }
    }
}

async fn listed(sweeper: &Sweeper, parent: &ShardId) -> Vec<Shard> {
    let listing = sweeper.next().await;
    let children = listing.children(parent).iter();
    children.map(|id| Shard { id: id.clone(), parent: Some(parent.clone()) }).collect()
}
