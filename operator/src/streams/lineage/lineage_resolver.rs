//! Asks for shards' families beside the reading: for the children of one that is read to its end, and
//! whether a parent that is not listed is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use super::child_discovery::{DiscoveryLoad, find_children, find_sibling, poll_for_children};
use super::parent_probe::probe_parent;
use crate::model::{ShardId, StreamLabel};
use crate::streams::context::ConsumerContext;
use crate::streams::listing::Listing;
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::streams::service::streams::Shard;

/// How often a parent may be found that no listing shows, before it is read all the same.
const MAX_LISTINGS_WITHOUT_PARENT: u32 = 3;

/// What was found out.
#[derive(Debug)]
pub enum LineageEvent {
    /// A finished shard has these children, or none that are described.
    Children(ShardId, Vec<Shard>),
    /// A parent that is not listed is gone.
    ParentTrimmed(ShardId),
    /// One is there; a listing is to show what comes before it.
    ParentFound(ShardId),
    /// One is there, and no listing shows it: what came before it is not known.
    ParentNeverListed(ShardId),
}

/// What is being asked.
#[derive(Debug)]
pub struct LineageResolver {
    streams: Arc<RateLimitedStreams>,
    context: Arc<ConsumerContext>,
    load: DiscoveryLoad,
    /// Finished shards whose children are asked for, for the first time.
    awaiting_children: BTreeSet<ShardId>,
    /// Parents that are not listed, how often they were found, and whether that is asked again now.
    probed: BTreeMap<ShardId, (u32, bool)>,
    tasks: JoinSet<LineageEvent>,
}

impl LineageResolver {
    /// Nothing is asked yet.
    pub fn new(streams: Arc<RateLimitedStreams>, context: Arc<ConsumerContext>) -> Self {
        Self {
            streams,
            context,
            load: DiscoveryLoad::default(),
            awaiting_children: BTreeSet::new(),
            probed: BTreeMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Asks for the children of a shard that is finished.
    pub fn find_children(&mut self, parent: ShardId) {
        self.awaiting_children.insert(parent.clone());
        let (streams, shared) = (self.streams.clone(), self.context.clone());
        let asking = self.load.clone();
        self.tasks.spawn(async move {
            let children = find_children(&streams, &shared, &parent, &asking).await;
            LineageEvent::Children(parent, children)
        });
    }

    /// Whether the children of a stream's shards are still asked for, for the first time.
    pub fn is_finding_children(&self, stream: &StreamLabel) -> bool {
        self.awaiting_children.iter().any(|id| id.stream == *stream)
    }

    /// Finds out whether a parent that is not listed is gone, or only missing from a listing.
    pub fn probe(&mut self, id: ShardId) {
        let (found, is_asked) = self.probed.entry(id.clone()).or_default();
        if std::mem::replace(is_asked, true) {
            return;
        }
        let found = *found;
        let (streams, shared) = (self.streams.clone(), self.context.clone());
        self.tasks.spawn(async move {
            match probe_parent(&streams, &id, &shared).await {
                true => LineageEvent::ParentTrimmed(id),
                false if found + 1 < MAX_LISTINGS_WITHOUT_PARENT => LineageEvent::ParentFound(id),
                false => LineageEvent::ParentNeverListed(id),
            }
        });
    }

    /// A listing shows parents that others lacked: nothing is known against it.
    pub fn observe_listing(&mut self, listing: &Listing) {
        for (_, (found, _)) in self.probed.iter_mut().filter(|(id, _)| listing.has(id)) {
            *found = 0;
        }
        self.probed.retain(|_, (found, is_asked)| *found > 0 || *is_asked);
    }

    /// Whether any parent is doubted.
    pub fn is_probing(&self) -> bool {
        self.probed.values().any(|(_, is_asked)| *is_asked)
    }

    /// The next news; for ever none while nothing is asked. What follows from it is asked on.
    pub async fn next(&mut self) -> Option<Result<LineageEvent, JoinError>> {
        let news = self.tasks.join_next().await?;
        match &news {
            Ok(LineageEvent::Children(parent, children)) => {
                if self.awaiting_children.remove(parent) {
                    self.keep_finding_children(parent.clone(), children.len());
                }
            }
            Ok(LineageEvent::ParentFound(id)) => {
                if let Some((found, is_asked)) = self.probed.get_mut(id) {
                    *found += 1;
                    *is_asked = false;
                }
            }
            Ok(LineageEvent::ParentTrimmed(id) | LineageEvent::ParentNeverListed(id)) => {
                self.probed.remove(id);
            }
            Err(_) => {}
        }
        Some(news)
    }

    /// After the first answer: for a second child, or for any.
    fn keep_finding_children(&mut self, parent: ShardId, found: usize) {
        if found > 1 {
            return;
        }
        let (streams, shared) = (self.streams.clone(), self.context.clone());
        let asking = self.load.clone();
        self.tasks.spawn(async move {
            let children = if found == 0 {
                poll_for_children(&streams, &shared, &parent, &asking).await
            } else {
                find_sibling(&streams, &shared, &parent, &asking).await
            };
            LineageEvent::Children(parent, children)
        });
    }

    /// Nothing more need be found out.
    pub fn abort(&mut self) {
        self.tasks.abort_all();
    }
}
