//! Decides which shards can be read: a child once its parent is finished, and every shard exactly
//! once. Pure functions of listings, checkpoint entries and the state in memory.
//!
//! A listing can be stale. It can lack a shard that it had, show a child late, or lack a trimmed
//! parent. The following rules hold:
//!
//! - Only the checkpoint entry of a shard decides how far the shard is settled. The entry stays
//!   while the shard is listed, or until there are too many entries.
//! - Parents are remembered across listings. So are finished shards whose entries were removed.
//! - A shard without an entry is finished by definition if a descendant has an entry.
//! - While a listing lacks a shard that is still read, only children of finished shards begin.
//! - While a listing lacks a known shard that cannot be trimmed yet, no older shard begins.
//! - A parent that is not listed is probed before it counts as trimmed.

#[cfg(test)]
pub mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Position, ShardId, ShardPositions, StreamLabel, UnixSeconds};
use crate::streams::listing::{Listing, StreamDescription};

/// A shard that listings have lacked for this long is trimmed, because listings are not stale for
/// as long.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// Maximum time between two listings that counts towards `FORGET_AFTER`. A paused process has
/// observed nothing in between.
const MAX_LISTING_INTERVAL: Duration = Duration::from_secs(300);

/// Number of entries above which a finished shard loses its entry as soon as a child has one. A
/// ConfigMap holds at least 10,000 entries, and more with shorter sequence numbers.
pub const PRUNE_THRESHOLD: usize = 6_000;

/// State of shards that is remembered across listings, besides their checkpoint entries.
#[derive(Debug, Default)]
pub struct ShardGraph {
    /// Parent of each shard.
    parents: BTreeMap<ShardId, ShardId>,
    /// Finished shards without an entry that can still be listed.
    pruned: BTreeSet<ShardId>,
    /// Trimmed parents of listed shards.
    trimmed: BTreeSet<ShardId>,
    /// Known shards that are not listed, and for how long.
    absent: BTreeMap<ShardId, Duration>,
    /// When the last listing was observed.
    observed_at: Option<Instant>,
    /// When shards without an entry were first listed, by the service's clock.
    listed_at: BTreeMap<ShardId, UnixSeconds>,
}

/// What to read of one stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Shards that can be read now, with their positions. Some have no entry yet.
    pub read: ShardPositions,
    /// Shards without an entry that must wait.
    pub blocked: Vec<ShardId>,
    /// Unlisted parents of blocked shards. Probe them to find out whether they were trimmed.
    pub missing_parents: BTreeSet<ShardId>,
    /// Whether the stream is disabled and all of its shards are finished.
    pub is_drained: bool,
}

impl ShardGraph {
    /// Observes a listing. Its shards have existed since `listed_at` at the latest. Returns entries
    /// that are no longer needed.
    pub fn observe(
        &mut self,
        listing: &Listing,
        entries: &ShardPositions,
        listed_at: UnixSeconds,
        now: Instant,
    ) -> Vec<ShardId> {
        for (id, parent) in listing.streams.values().flat_map(StreamDescription::shards) {
            self.observe_shard(id, parent, listed_at);
        }
        self.listed_at.retain(|id, _| !entries.contains_key(id));
        let Self { trimmed, parents, .. } = self;
        if !trimmed.is_empty() {
            let needed: BTreeSet<_> = parents.values().collect();
            trimmed.retain(|id| needed.contains(id) && !listing.has(id));
        }
        let mut forgotten = self.forget_trimmed(listing, entries, now);
        if entries.len() > PRUNE_THRESHOLD {
            forgotten.extend(self.prune(entries));
        }
        forgotten
    }

    /// Observes a single shard of a response.
    pub fn observe_shard(&mut self, id: &ShardId, parent: Option<&ShardId>, now: UnixSeconds) {
        if let Some(parent) = parent {
            self.parents.insert(id.clone(), parent.clone());
        }
        self.listed_at.entry(id.clone()).or_insert(now);
    }

    /// When a shard without an entry was first listed.
    pub fn listed_at(&self, id: &ShardId) -> Option<UnixSeconds> {
        self.listed_at.get(id).copied()
    }

    /// Records that the entry of a finished shard was removed, because a child has one.
    pub fn observe_pruned(&mut self, id: ShardId) {
        self.pruned.insert(id);
    }

    /// Records that a probe found a parent to be trimmed.
    pub fn observe_trimmed(&mut self, id: ShardId) {
        self.trimmed.insert(id);
    }

    /// Removes and returns the shards of a stream that were listed and never begun.
    pub fn take_unread(&mut self, stream: &StreamLabel, entries: &ShardPositions) -> Vec<ShardId> {
        let Self { listed_at, pruned, .. } = self;
        let is_unread = |id: &ShardId| {
            id.stream == *stream && !entries.contains_key(id) && !pruned.contains(id)
        };
        listed_at.extract_if(.., |id, _| is_unread(id)).map(|(id, _)| id).collect()
    }

    /// Whether a shard is finished, and its entry was removed.
    pub fn is_pruned(&self, id: &ShardId) -> bool {
        self.pruned.contains(id)
    }

    /// The parent that a shard without an entry waits for, whether it is listed or not.
    pub fn awaited_parent(&self, id: &ShardId, entries: &ShardPositions) -> Option<&ShardId> {
        self.parents.get(id).filter(|parent| {
            !self.trimmed.contains(parent)
                && !self.pruned.contains(parent)
                && match entries.get(parent) {
                    Some(position) => *position != Position::Finished,
                    None => !self.ancestors(entries).contains(parent),
                }
        })
    }

    /// Forgets finished shards that were not listed for an hour, and returns them.
    fn forget_trimmed(
        &mut self,
        listing: &Listing,
        entries: &ShardPositions,
        now: Instant,
    ) -> Vec<ShardId> {
        let known = entries.keys().chain(&self.pruned);
        let missing: BTreeSet<_> = known.filter(|id| !listing.has(id)).cloned().collect();
        self.absent.retain(|id, _| missing.contains(id));
        let previous = self.observed_at.replace(now).unwrap_or(now);
        let interval = now.duration_since(previous).min(MAX_LISTING_INTERVAL);
        for id in missing {
            self.absent.entry(id).and_modify(|absent| *absent += interval).or_default();
        }
        let is_trimmed =
            |id: &ShardId| self.absent.get(id).is_some_and(|absent| *absent >= FORGET_AFTER);
        let is_finished = |id: &ShardId| entries.get(id).is_none_or(|it| *it == Position::Finished);
        let trimmed: Vec<_> =
            self.absent.keys().filter(|id| is_trimmed(id) && is_finished(id)).cloned().collect();
        for id in &trimmed {
            self.absent.remove(id);
            self.pruned.remove(id);
            self.parents.remove(id);
            self.listed_at.remove(id);
            self.trimmed.insert(id.clone());
        }
        trimmed
    }

    /// Marks finished shards as pruned if a child has an entry, and returns them. The child's entry
    /// implies that its parent is finished.
    fn prune(&mut self, entries: &ShardPositions) -> Vec<ShardId> {
        let parents = entries.keys().filter_map(|id| self.parents.get(id));
        let is_finished = |id: &&ShardId| entries.get(*id) == Some(&Position::Finished);
        let pruned: BTreeSet<_> = parents.filter(is_finished).cloned().collect();
        self.pruned.extend(pruned.iter().cloned());
        pruned.into_iter().collect()
    }

    /// Decides what to read of one stream, given its listing and its entries. A listing that is not
    /// stale contains every shard that was created at `kept_since` or later.
    pub fn plan(
        &self,
        stream: &StreamDescription,
        entries: &ShardPositions,
        kept_since: UnixSeconds,
    ) -> Plan {
        let ancestors = self.ancestors(entries);
        let is_finished = |id: &ShardId| match entries.get(id) {
            Some(position) => *position == Position::Finished,
            None => self.pruned.contains(id) || ancestors.contains(id),
        };
        let is_unlisted = |id: &ShardId| !entries.contains_key(id) && !stream.has(id);
        let newest_missing = self.newest_missing(stream, entries, &ancestors, kept_since);
        let may_be_ancestor = |id: &ShardId| {
            newest_missing.zip(id.created_at()).is_some_and(|(missing, created)| created < missing)
        };
        let mut plan = Plan::default();
        let mut is_stale = false;
        for (id, position) in entries.iter().filter(|(_, it)| **it != Position::Finished) {
            is_stale |= !stream.has(id);
            if self.parents.get(id).is_none_or(|it| is_finished(it) || is_unlisted(it)) {
                plan.read.insert(id.clone(), position.clone());
            }
        }
        for (id, _) in stream.shards() {
            if entries.contains_key(id) || is_finished(id) {
                continue;
            }
            let parent = self.parents.get(id);
            let is_trimmed = |id| self.trimmed.contains(id) || fault!(UnlistedParentAssumedTrimmed);
            let is_root = match parent {
                None => true,
                Some(_) if fault!(TrimmedParentBlocksChildren) => false,
                Some(parent) => is_unlisted(parent) && is_trimmed(parent),
            };
            let can_begin = parent.is_some_and(is_finished) || is_root && !is_stale;
            if can_begin && !may_be_ancestor(id) {
                plan.read.insert(id.clone(), Position::TrimHorizon);
                continue;
            }
            plan.blocked.push(id.clone());
            if !is_root {
                plan.missing_parents.extend(parent.filter(|it| is_unlisted(it)).cloned());
            }
        }
        let has_unfinished = entries.values().any(|position| *position != Position::Finished);
        let all_finished = !has_unfinished && plan.read.is_empty() && plan.blocked.is_empty();
        plan.is_drained = !stream.is_open && all_finished;
        plan
    }

    /// Creation time of the newest known shard that the listing lacks although it cannot be trimmed
    /// yet. Any older shard can be its ancestor, and therefore finished, so no older shard begins.
    fn newest_missing(
        &self,
        stream: &StreamDescription,
        entries: &ShardPositions,
        ancestors: &BTreeSet<&ShardId>,
        kept_since: UnixSeconds,
    ) -> Option<UnixSeconds> {
        let known = entries.keys().chain(ancestors.iter().copied());
        let unlisted = known.filter(|id| !stream.has(id) && !self.pruned.contains(id));
        let missing = unlisted.filter(|id| !self.trimmed.contains(id));
        missing.filter_map(ShardId::created_at).filter(|created| *created >= kept_since).max()
    }

    /// Every ancestor of a shard that has an entry.
    fn ancestors<'a>(&'a self, entries: &ShardPositions) -> BTreeSet<&'a ShardId> {
        let mut ancestors = BTreeSet::new();
        for id in entries.keys() {
            let mut next = self.parents.get(id);
            // Stops at an ancestor that was already visited. This also ends a cycle, which no
            // stream has.
            while let Some(parent) = next.filter(|parent| ancestors.insert(*parent)) {
                next = self.parents.get(parent);
            }
        }
        ancestors
    }
}
