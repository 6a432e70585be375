//! What DescribeStream has shown: the shards of each stream that is read, with their parents and
//! children. Plain data.

pub mod initial_listing;
pub mod shard_lister;

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::model::{KeySchema, ShardId, StreamLabel, UnixSeconds, ViewType};
use crate::streams::service::streams::{Shard, StreamPage, StreamStatus};

/// One whole listing of every stream that is read.
#[derive(Clone, Debug)]
pub struct Listing {
    /// The streams, the oldest first.
    pub streams: BTreeMap<StreamLabel, StreamDescription>,
    /// The table's newest stream, where it is none of these.
    pub replaced_by: Option<StreamLabel>,
    /// When listing began, by our clock.
    pub started: Instant,
    /// The same by the service's clock, floored to the second; unless the table never had a stream.
    pub started_at: Option<UnixSeconds>,
    /// When it ended, by our clock.
    pub ended: Instant,
    /// How many pages it took.
    pub pages: u32,
}

/// One stream as it is listed.
#[derive(Clone, Debug)]
pub struct StreamDescription {
    /// Whether changes still arrive, or may; not once it is disabled.
    pub is_open: bool,
    /// Which images records carry, and the key attributes; `None` once the stream is gone.
    pub schema: Option<(ViewType, KeySchema)>,
    parents: BTreeMap<ShardId, Option<ShardId>>,
    children: BTreeMap<ShardId, Vec<ShardId>>,
}

impl StreamDescription {
    /// A stream that is no more: 24 hours after it was disabled.
    pub fn trimmed() -> Self {
        let (parents, children) = (BTreeMap::new(), BTreeMap::new());
        Self { is_open: false, schema: None, parents, children }
    }

    /// A stream of which a page was listed; the shards of further pages are added.
    pub fn new(page: &StreamPage) -> Self {
        let mut described = Self {
            is_open: page.status != StreamStatus::Disabled,
            schema: Some((page.view_type, page.keys.clone())),
            ..Self::trimmed()
        };
        described.add(&page.shards);
        described
    }

    /// A stream with these shards.
    #[cfg(test)]
    pub fn with_shards(is_open: bool, shards: &[Shard]) -> Self {
        let mut described = Self { is_open, ..Self::trimmed() };
        described.add(shards);
        described
    }

    /// Whether the stream is no more.
    pub fn is_trimmed(&self) -> bool {
        self.schema.is_none()
    }

    /// Whether no shard is listed.
    pub fn is_empty(&self) -> bool {
        self.parents.is_empty()
    }

    /// Adds shards.
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

    /// A shard's children.
    pub fn children(&self, id: &ShardId) -> &[ShardId] {
        self.children.get(id).map_or(&[], Vec::as_slice)
    }

    /// Whether a shard has no children: it is open, or the last of a stream that is disabled.
    pub fn is_leaf(&self, id: &ShardId) -> bool {
        !self.children.contains_key(id)
    }
}

impl Listing {
    /// The service answered just now, at this time of its clock.
    pub fn record_response(&mut self, now: UnixSeconds) {
        self.started_at.get_or_insert(now);
        self.ended = Instant::now();
    }

    /// Whether a shard is in it.
    pub fn has(&self, id: &ShardId) -> bool {
        self.streams.get(&id.stream).is_some_and(|stream| stream.has(id))
    }

    /// A shard's children in it.
    pub fn children(&self, id: &ShardId) -> &[ShardId] {
        self.streams.get(&id.stream).map_or(&[], |stream| stream.children(id))
    }

    /// Whether a shard gets no more records: it has children, or its stream is disabled.
    pub fn is_closed(&self, id: &ShardId) -> bool {
        self.streams.get(&id.stream).is_some_and(|stream| !stream.is_open || !stream.is_leaf(id))
    }

    /// The newest of the streams.
    pub fn newest(&self) -> Option<(&StreamLabel, &StreamDescription)> {
        self.streams.last_key_value()
    }
}
