//! Asks for shards' families beside the reading: for the children of one that is read to its end, and
//! whether a parent that is not listed is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use super::child_discovery::{Asking, ask, ask_again, ask_on};
use super::parent_probe::is_gone;
use crate::model::{ShardId, StreamLabel};
use crate::streams::context::ConsumerContext;
use crate::streams::listing::Listing;
use crate::streams::service::rate_limited::Calls;
use crate::streams::service::streams::Shard;

/// How often a parent may be found that no listing shows, before it is read all the same.
const LISTINGS: u32 = 3;

/// What was found out.
#[derive(Debug)]
pub enum News {
    /// A finished shard has these children, or none that are described.
    Children(ShardId, Vec<Shard>),
    /// A parent that is not listed is gone.
    Gone(ShardId),
    /// One is there; a listing is to show what comes before it.
    There(ShardId),
    /// One is there, and no listing shows it: what came before it is not known.
    Unlisted(ShardId),
}

/// What is being asked.
#[derive(Debug)]
pub struct Family {
    streams: Arc<Calls>,
    shared: Arc<ConsumerContext>,
    asking: Asking,
    /// Finished shards whose children are asked for, for the first time.
    childless: BTreeSet<ShardId>,
    /// Parents that are not listed, how often they were found, and whether that is asked again now.
    doubted: BTreeMap<ShardId, (u32, bool)>,
    tasks: JoinSet<News>,
}

impl Family {
    /// Nothing is asked yet.
    pub fn new(streams: Arc<Calls>, shared: Arc<ConsumerContext>) -> Self {
        Self {
            streams,
            shared,
            asking: Asking::default(),
            childless: BTreeSet::new(),
            doubted: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Asks for the children of a shard that is finished.
    pub fn ask(&mut self, parent: ShardId) {
        self.childless.insert(parent.clone());
        let (streams, shared) = (self.streams.clone(), self.shared.clone());
        let asking = self.asking.clone();
        self.tasks.spawn(async move {
            let children = ask(&streams, &shared, &parent, &asking).await;
            News::Children(parent, children)
        });
    }

    /// Whether the children of a stream's shards are still asked for, for the first time.
    pub fn asks(&self, stream: &StreamLabel) -> bool {
        self.childless.iter().any(|id| id.stream == *stream)
    }

    /// Finds out whether a parent that is not listed is gone, or only missing from a listing.
    pub fn doubt(&mut self, id: ShardId) {
        let (found, is_asked) = self.doubted.entry(id.clone()).or_default();
        if std::mem::replace(is_asked, true) {
            return;
        }
        let found = *found;
        let (streams, shared) = (self.streams.clone(), self.shared.clone());
        self.tasks.spawn(async move {
            match is_gone(&streams, &id, &shared).await {
                true => News::Gone(id),
                false if found + 1 < LISTINGS => News::There(id),
                false => News::Unlisted(id),
            }
        });
    }

    /// A listing shows parents that others lacked: nothing is known against it.
    pub fn seen(&mut self, listing: &Listing) {
        for (_, (found, _)) in self.doubted.iter_mut().filter(|(id, _)| listing.has(id)) {
            *found = 0;
        }
        self.doubted.retain(|_, (found, is_asked)| *found > 0 || *is_asked);
    }

    /// Whether any parent is doubted.
    pub fn doubts(&self) -> bool {
        self.doubted.values().any(|(_, is_asked)| *is_asked)
    }

    /// The next news; for ever none while nothing is asked. What follows from it is asked on.
    pub async fn next(&mut self) -> Option<Result<News, JoinError>> {
        let news = self.tasks.join_next().await?;
        match &news {
            Ok(News::Children(parent, children)) => {
                if self.childless.remove(parent) {
                    self.ask_on(parent.clone(), children.len());
                }
            }
            Ok(News::There(id)) => {
                if let Some((found, is_asked)) = self.doubted.get_mut(id) {
                    *found += 1;
                    *is_asked = false;
                }
            }
            Ok(News::Gone(id) | News::Unlisted(id)) => {
                self.doubted.remove(id);
            }
            Err(_) => {}
        }
        Some(news)
    }

    /// After the first answer: for a second child, or for any.
    fn ask_on(&mut self, parent: ShardId, found: usize) {
        if found > 1 {
            return;
        }
        let (streams, shared) = (self.streams.clone(), self.shared.clone());
        let asking = self.asking.clone();
        self.tasks.spawn(async move {
            let children = if found == 0 {
                ask_on(&streams, &shared, &parent, &asking).await
            } else {
                ask_again(&streams, &shared, &parent, &asking).await
            };
            News::Children(parent, children)
        });
    }

    /// Nothing more need be found out.
    pub fn abandon(&mut self) {
        self.tasks.abort_all();
    }
}
