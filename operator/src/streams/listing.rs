//! The result of DescribeStream: the shards of each consumed stream, with their parents and
//! children. Plain data without I/O.

pub mod initial_listing;
pub mod shard_lister;

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::model::{KeySchema, ShardId, StreamLabel, UnixSeconds, ViewType};
use crate::streams::service::streams::{Shard, StreamPage, StreamStatus};

/// A complete listing of every consumed stream.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The streams, oldest first.
    pub streams: BTreeMap<StreamLabel, StreamDescription>,
    /// The newest stream of the table, if it is not one of `streams`.
    pub replaced_by: Option<StreamLabel>,
    /// When the listing started, by the local clock.
    pub started: Instant,
    /// When the listing started, by the service's clock, rounded down to the second. `None` if the
    /// table never had a stream.
    pub started_at: Option<UnixSeconds>,
    /// When the listing ended, by the local clock.
    pub ended: Instant,
    /// Number of DescribeStream pages.
    pub pages: u32,
}

/// One stream of a listing.
#[derive(Clone, Debug)]
pub struct StreamDescription {
    /// Whether records can still arrive. `false` once the stream is disabled.
    pub is_open: bool,
    /// View type and key attributes. `None` once the stream is deleted.
    pub schema: Option<(ViewType, KeySchema)>,
    parents: BTreeMap<ShardId, Option<ShardId>>,
    children: BTreeMap<ShardId, Vec<ShardId>>,
}

impl StreamDescription {
    /// A deleted stream. DynamoDB deletes a stream 24 hours after it was disabled.
    pub fn deleted() -> Self {
        let (parents, children) = (BTreeMap::new(), BTreeMap::new());
        Self { is_open: false, schema: None, parents, children }
    }

    /// A stream of which one page was listed. Add the shards of further pages with `add`.
    pub fn new(page: &StreamPage) -> Self {
        let mut description = Self {
            is_open: page.status != StreamStatus::Disabled,
            schema: Some((page.view_type, page.keys.clone())),
            ..Self::deleted()
        };
        description.add(&page.shards);
        description
    }

    #[cfg(test)]
    pub fn with_shards(is_open: bool, shards: &[Shard]) -> Self {
        let mut description = Self { is_open, ..Self::deleted() };
        description.add(shards);
        description
    }

    pub fn is_deleted(&self) -> bool {
        self.schema.is_none()
    }

    /// Whether no shard is listed.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// Adds shards. A shard that is listed twice stays a single child of its parent.
    pub fn add(&mut self, shards: &[Shard]) {
        for Shard { id, parent } in shards {
            let is_new = self.parents.insert(id.clone(), parent.clone()).is_none();
            if let Some(parent) = parent.as_ref().filter(|_| is_new) {
                self.children.entry(parent.clone()).or_default().push(id.clone());
            }
        }
    }

    /// Every shard with its parent.
    pub fn shards(&self) -> impl Iterator<Item = (&ShardId, Option<&ShardId>)> {
        self.parents.iter().map(|(id, parent)| (id, parent.as_ref()))
    }

    /// Whether a shard is listed.
    pub fn has(&self, id: &ShardId) -> bool {
        self.parents.contains_key(id)
    }

    /// Listed children of a shard.
    pub fn children(&self, id: &ShardId) -> &[ShardId] {
        self.children.get(id).map_or(&[], Vec::as_slice)
    }

    /// Whether a shard has no children. It is then open, or the last shard of a disabled stream.
    pub fn is_leaf(&self, id: &ShardId) -> bool {
        !self.children.contains_key(id)
    }
}

impl Listing {
    /// Records that a response with this service time has just arrived.
    pub fn record_response(&mut self, now: UnixSeconds) {
        self.started_at.get_or_insert(now);
        self.ended = Instant::now();
    }

    /// Whether a shard is listed.
    pub fn has(&self, id: &ShardId) -> bool {
        self.streams.get(&id.stream).is_some_and(|stream| stream.has(id))
    }

    /// Listed children of a shard.
    pub fn children(&self, id: &ShardId) -> &[ShardId] {
        self.streams.get(&id.stream).map_or(&[], |stream| stream.children(id))
    }

    /// Whether a shard receives no more records, because it has children or its stream is disabled.
    pub fn is_closed(&self, id: &ShardId) -> bool {
        self.streams.get(&id.stream).is_some_and(|stream| !stream.is_open || !stream.is_leaf(id))
    }

    /// The newest of the listed streams.
    pub fn newest(&self) -> Option<(&StreamLabel, &StreamDescription)> {
        self.streams.last_key_value()
    }
}
