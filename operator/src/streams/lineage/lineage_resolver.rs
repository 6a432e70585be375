//! Runs requests about the lineage of shards in the background: for the children of a finished
//! shard, and for a parent that is not listed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tokio::task::{JoinError, JoinSet};

use super::child_discovery::{DiscoveryLoad, find_children, find_sibling, poll_for_children};
use super::parent_probe::{ParentState, probe_parent};
use crate::model::{ShardId, StreamLabel};
use crate::streams::context::ConsumerContext;
use crate::streams::listing::Listing;
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::streams::service::streams::Shard;

/// A parent that exists but is missing from this number of listings in a row is read anyway.
const MAX_LISTINGS_WITHOUT_PARENT: u32 = 3;

/// Result of a request about the lineage of a shard.
#[derive(Debug)]
pub enum LineageEvent {
    /// A finished shard has these children. The list is empty if the service shows none.
    Children(ShardId, Vec<Shard>),
    /// An unlisted parent was trimmed.
    ParentTrimmed(ShardId),
    /// An unlisted parent exists. A listing must show its ancestors.
    ParentFound(ShardId),
    /// An unlisted parent exists, but listings do not show it. Its ancestors are unknown.
    ParentStillUnlisted(ShardId),
}

/// State of an unlisted parent.
#[derive(Debug, Default)]
struct ProbeState {
    /// Number of probes that found the parent since a listing showed it.
    found: u32,
    is_probing: bool,
}

/// Requests about the lineage of shards that are in progress.
#[derive(Debug)]
pub struct LineageResolver {
    streams: Arc<RateLimitedStreams>,
    context: Arc<ConsumerContext>,
    load: DiscoveryLoad,
    /// Finished shards whose first request for children is in progress.
    awaiting_children: BTreeSet<ShardId>,
    /// Unlisted parents.
    probed: BTreeMap<ShardId, ProbeState>,
    tasks: JoinSet<LineageEvent>,
}

impl LineageResolver {
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

    /// Starts to look for the children of a finished shard.
    pub fn find_children(&mut self, parent: ShardId) {
        self.awaiting_children.insert(parent.clone());
        let (streams, context) = (self.streams.clone(), self.context.clone());
        let load = self.load.clone();
        self.tasks.spawn(async move {
            let children = find_children(&streams, &context, &parent, &load).await;
            LineageEvent::Children(parent, children)
        });
    }

    /// Whether the first request for the children of one of a stream's shards is in progress.
    pub fn is_finding_children(&self, stream: &StreamLabel) -> bool {
        self.awaiting_children.iter().any(|id| id.stream == *stream)
    }

    /// Starts a probe of an unlisted parent, unless one is in progress.
    pub fn probe(&mut self, id: ShardId) {
        let state = self.probed.entry(id.clone()).or_default();
        if std::mem::replace(&mut state.is_probing, true) {
            return;
        }
        let found = state.found;
        let (streams, context) = (self.streams.clone(), self.context.clone());
        self.tasks.spawn(async move {
            match probe_parent(&streams, &id, &context).await {
                ParentState::Trimmed => LineageEvent::ParentTrimmed(id),
                ParentState::Exists if found + 1 < MAX_LISTINGS_WITHOUT_PARENT => {
                    LineageEvent::ParentFound(id)
                }
                ParentState::Exists => LineageEvent::ParentStillUnlisted(id),
            }
        });
    }

    /// Observes a listing. A parent that it shows starts from zero if a later listing lacks it.
    pub fn observe_listing(&mut self, listing: &Listing) {
        for (_, state) in self.probed.iter_mut().filter(|(id, _)| listing.has(id)) {
            state.found = 0;
        }
        self.probed.retain(|_, state| state.found > 0 || state.is_probing);
    }

    /// Whether a probe is in progress.
    pub fn is_probing(&self) -> bool {
        self.probed.values().any(|state| state.is_probing)
    }

    /// Waits for the next event, and starts the requests that follow from it. Returns `None` if no
    /// request is in progress.
    pub async fn next_event(&mut self) -> Option<Result<LineageEvent, JoinError>> {
        let event = self.tasks.join_next().await?;
        match &event {
            Ok(LineageEvent::Children(parent, children)) => {
                if self.awaiting_children.remove(parent) {
                    self.keep_finding_children(parent.clone(), children.len());
                }
            }
            Ok(LineageEvent::ParentFound(id)) => {
                if let Some(state) = self.probed.get_mut(id) {
                    state.found += 1;
                    state.is_probing = false;
                }
            }
            Ok(LineageEvent::ParentTrimmed(id) | LineageEvent::ParentStillUnlisted(id)) => {
                self.probed.remove(id);
            }
            Err(_) => {}
        }
        Some(event)
    }

    /// Continues after the first request: with a poll for any child if there is none, or with a
    /// request for a second one.
    fn keep_finding_children(&mut self, parent: ShardId, found: usize) {
        if found > 1 {
            return;
        }
        let (streams, context) = (self.streams.clone(), self.context.clone());
        let load = self.load.clone();
        self.tasks.spawn(async move {
            let children = if found == 0 {
                poll_for_children(&streams, &context, &parent, &load).await
            } else {
                find_sibling(&streams, &context, &parent, &load).await
            };
            LineageEvent::Children(parent, children)
        });
    }

    /// Aborts all requests.
    pub fn abort(&mut self) {
        self.tasks.abort_all();
    }
}
