//! Asks for a shard's family. For the children of one that is read to its end: a few times in quick
//! succession, because a description may be behind, then it is left to the sweep; the last shard of a
//! disabled stream never has any. And for a parent that is not listed: whether it is gone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::sleep;

use super::calls::Calls;
use super::shard::Shared;
use super::sweep::Sweeper;
use super::trouble;
use crate::backoff::{Backoff, Failing, Random};
use crate::record::ShardId;
use crate::stream::{Listed, ReadFrom, Shard, StreamError, StreamErrorKind, Streams};
use crate::telemetry::Part;

const TRIES: u32 = 10;
const TRIES_OF_A_LISTING: u32 = 5;
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(1);
const BEFORE_ASKING_AGAIN: Duration = Duration::from_secs(3);
const BEFORE_LISTING_AGAIN: Duration = Duration::from_secs(5);

/// How many shards' children are asked for right now.
#[derive(Clone, Debug, Default)]
pub struct Asking(Arc<AtomicU32>);

impl Asking {
    fn now(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The children of `parent` as soon as they are described; none if they are not for long.
pub async fn ask<S: Streams>(
    streams: &Calls<S>,
    sweeper: &Sweeper,
    parent: &ShardId,
    asking: &Asking,
    random: &Random,
) -> Vec<Shard> {
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
            (described(streams, parent).await.unwrap_or_default(), tries + 1)
        };
        if !found.is_empty() {
            break;
        }
        sleep(backoff.next(random)).await;
    }
    asking.0.fetch_sub(1, Ordering::Relaxed);
    found
}

/// The children of a shard of which one is known: another one may be described a little later.
pub async fn ask_again<S: Streams>(streams: &Calls<S>, parent: &ShardId) -> Vec<Shard> {
    sleep(BEFORE_ASKING_AGAIN).await;
    // What it does not find is left to the sweep.
    described(streams, parent).await.unwrap_or_default()
}

/// Whether a shard that is not listed is gone. If it is there, that is said only after a while: the
/// next listing is to show it.
pub async fn is_gone<S: Streams, C, G>(
    streams: &Calls<S>,
    id: &ShardId,
    shared: &Shared<C, G>,
) -> bool {
    let part = Part::Shard(id.clone());
    let mut failing = Failing::new(LONGEST_WAIT);
    let is_gone = loop {
        match streams.iterator(id, &ReadFrom::Start).await {
            Ok(_) => break false,
            Err(StreamError {
                kind: StreamErrorKind::NotFound | StreamErrorKind::Trimmed, ..
            }) => break true,
            Err(error) => {
                shared.telemetry.retrying(&error);
                let stream = id.stream.arn(&shared.table);
                if let Some(trouble) = trouble::stream(&stream, &error, &mut failing) {
                    shared.health.troubled(part.clone(), trouble);
                }
                sleep(failing.wait(&shared.random)).await;
            }
        }
    };
    shared.health.well(&part);
    if !is_gone {
        sleep(BEFORE_LISTING_AGAIN).await;
    }
    is_gone
}

async fn described<S: Streams>(
    streams: &Calls<S>,
    parent: &ShardId,
) -> Result<Vec<Shard>, StreamError> {
    let mut children = Vec::new();
    let mut after = None;
    loop {
        let listed = Listed::ChildrenOf(parent);
        let page = streams.describe(&parent.stream, listed, after.as_ref()).await?;
        children.extend(page.shards.into_iter().filter(|it| it.parent.as_ref() == Some(parent)));
        after = page.next;
        if after.is_none() {
            return Ok(children);
        }
    }
}

async fn listed(sweeper: &Sweeper, parent: &ShardId) -> Vec<Shard> {
    let listing = sweeper.next().await;
    let children = listing.children(parent).iter();
    children.map(|id| Shard { id: id.clone(), parent: Some(parent.clone()) }).collect()
}
