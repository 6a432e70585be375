//! Which shards to read now: a child only once its parent is finished, a stream only once those
//! before it are, every shard once, none forgotten. Pure, from listings and what is remembered.
//!
//! A listing may be behind: it can lack a shard that it had, show a child late, or no longer show a
//! parent (trimmed). So what is known of a shard is what its entry says; an entry stays for as long as
//! its shard is listed, or until there are too many; parents, and finished shards whose entries went,
//! are remembered over listings; while a shard that is still read is missing from the listing, no
//! shard is begun but the children of finished ones; while any known one is missing that is kept still,
//! nothing is begun that was made before it; and a parent that is not listed is asked for before it is
//! believed to be gone. A shard without an entry that is an ancestor of one that has one
//! is finished by definition.

#[cfg(test)]
pub mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::{Position, ShardId, ShardPositions, StreamLabel, UnixSeconds};
use crate::streams::listing::{Listing, StreamDescription};

/// After so long a shard that is not listed is gone, not just missing from listings that are behind.
const FORGET_AFTER: Duration = Duration::from_secs(3600);

/// From one listing to the next no more than this counts: a process that stood still has seen nothing.
const MAX_LISTING_INTERVAL: Duration = Duration::from_secs(300);

/// From so many entries on, those of finished shards go as soon as a child has one: a ConfigMap
/// holds 10,000 at least, and more with shorter numbers.
pub const PRUNE_THRESHOLD: usize = 6_000;

/// What is remembered of shards over listings, beside their entries.
#[derive(Debug, Default)]
pub struct ShardGraph {
    parents: BTreeMap<ShardId, ShardId>,
    /// Finished shards whose entries went although they may still be listed.
    pruned: BTreeSet<ShardId>,
    /// Parents of listed shards that are gone.
    trimmed: BTreeSet<ShardId>,
    /// Known shards that are not listed, and for how long.
    absent: BTreeMap<ShardId, Duration>,
    /// When the last listing was learned from.
    observed_at: Option<Instant>,
    /// When shards without an entry were listed first, by the service's clock.
    listed_at: BTreeMap<ShardId, UnixSeconds>,
}

/// What follows from a listing of one stream.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Shards that may be read now and from where; those without an entry yet among them.
    pub read: ShardPositions,
    /// Shards without an entry that have to wait.
    pub blocked: Vec<ShardId>,
    /// Shards that some of those wait for, and that are not listed: are they gone?
    pub missing_parents: BTreeSet<ShardId>,
    /// Whether everything it has, and will have, is finished.
    pub is_drained: bool,
}

impl ShardGraph {
    /// Takes in a listing, whose shards have been there since `listed_at` at the latest, and returns
    /// the entries that need not be remembered any more.
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
        let Self { trimmed: gone, parents, .. } = self;
        if !gone.is_empty() {
            let needed: BTreeSet<_> = parents.values().collect();
            gone.retain(|id| needed.contains(id) && !listing.has(id));
        }
        let mut forgotten = self.forget_trimmed(listing, entries, now);
        if entries.len() > PRUNE_THRESHOLD {
            forgotten.extend(self.prune(entries));
        }
        forgotten
    }

    /// Takes in one shard that is listed.
    pub fn observe_shard(&mut self, id: &ShardId, parent: Option<&ShardId>, now: UnixSeconds) {
        if let Some(parent) = parent {
            self.parents.insert(id.clone(), parent.clone());
        }
        self.listed_at.entry(id.clone()).or_insert(now);
    }

    /// When a shard was listed first.
    pub fn listed_at(&self, id: &ShardId) -> Option<UnixSeconds> {
        self.listed_at.get(id).copied()
    }

    /// A finished shard's entry went, since a child has one.
    pub fn observe_pruned(&mut self, id: ShardId) {
        self.pruned.insert(id);
    }

    /// A parent that was doubted is gone.
    pub fn observe_trimmed(&mut self, id: ShardId) {
        self.trimmed.insert(id);
    }

    /// The shards of a stream that were listed and never begun; they are not remembered any more.
    pub fn take_unread(&mut self, stream: &StreamLabel, entries: &ShardPositions) -> Vec<ShardId> {
        let Self { listed_at, pruned, .. } = self;
        let is_unread = |id: &ShardId| {
            id.stream == *stream && !entries.contains_key(id) && !pruned.contains(id)
        };
        listed_at.extract_if(.., |id, _| is_unread(id)).map(|(id, _)| id).collect()
    }

    /// Whether a shard was finished, and its entry went.
    pub fn is_pruned(&self, id: &ShardId) -> bool {
        self.pruned.contains(id)
    }

    /// The parent that a shard without an entry waits for, listed or not.
    pub fn missing_ancestor(&self, id: &ShardId, entries: &ShardPositions) -> Option<&ShardId> {
        self.parents.get(id).filter(|parent| {
            !self.trimmed.contains(parent)
                && !self.pruned.contains(parent)
                && match entries.get(parent) {
                    Some(position) => *position != Position::Finished,
                    None => !self.ancestors(entries).contains(parent),
                }
        })
    }

    /// Finished shards that have not been listed for long.
    fn forget_trimmed(
        &mut self,
        listing: &Listing,
        entries: &ShardPositions,
        now: Instant,
    ) -> Vec<ShardId> {
        let known = entries.keys().chain(&self.pruned);
        let missing: BTreeSet<_> = known.filter(|id| !listing.has(id)).cloned().collect();
        self.absent.retain(|id, _| missing.contains(id));
        let before = self.observed_at.replace(now).unwrap_or(now);
        let between = now.duration_since(before).min(MAX_LISTING_INTERVAL);
        for id in missing {
            self.absent.entry(id).and_modify(|absent| *absent += between).or_default();
        }
        let is_gone =
            |id: &ShardId| self.absent.get(id).is_some_and(|absent| *absent >= FORGET_AFTER);
        let is_finished = |id: &ShardId| entries.get(id).is_none_or(|it| *it == Position::Finished);
        let gone: Vec<_> =
            self.absent.keys().filter(|id| is_gone(id) && is_finished(id)).cloned().collect();
        for id in &gone {
            self.absent.remove(id);
            self.pruned.remove(id);
            self.parents.remove(id);
            self.listed_at.remove(id);
            self.trimmed.insert(id.clone());
        }
        gone
    }

    /// Finished shards that a child with an entry speaks for.
    fn prune(&mut self, entries: &ShardPositions) -> Vec<ShardId> {
        let spoken_for = entries.keys().filter_map(|id| self.parents.get(id));
        let is_finished = |id: &&ShardId| entries.get(*id) == Some(&Position::Finished);
        let pruned: BTreeSet<_> = spoken_for.filter(is_finished).cloned().collect();
        self.pruned.extend(pruned.iter().cloned());
        pruned.into_iter().collect()
    }

    /// What to read of one stream, given its listing and its entries. A shard made at `kept_since` or
    /// later is listed, unless the listing is behind.
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
        let missing = self.missing(stream, entries, &ancestors, kept_since);
        let may_be_before = |id: &ShardId| {
            missing.zip(id.created_at()).is_some_and(|(missing, made_at)| made_at < missing)
        };
        let mut plan = Plan::default();
        let mut is_behind = false;
        for (id, position) in entries.iter().filter(|(_, it)| **it != Position::Finished) {
            is_behind |= !stream.has(id);
            if self.parents.get(id).is_none_or(|it| is_finished(it) || is_unlisted(it)) {
                plan.read.insert(id.clone(), position.clone());
            }
        }
        for (id, _) in stream.shards() {
            if entries.contains_key(id) || is_finished(id) {
                continue;
            }
            let parent = self.parents.get(id);
            let is_gone = |id| self.trimmed.contains(id) || fault!(UnlistedParentAssumedTrimmed);
            let is_root = match parent {
                None => true,
                Some(_) if fault!(TrimmedParentBlocksChildren) => false,
                Some(parent) => is_unlisted(parent) && is_gone(parent),
            };
            let may_begin = parent.is_some_and(is_finished) || is_root && !is_behind;
            if may_begin && !may_be_before(id) {
                plan.read.insert(id.clone(), Position::Start);
                continue;
            }
            plan.blocked.push(id.clone());
            if !is_root {
                plan.missing_parents.extend(parent.filter(|it| is_unlisted(it)).cloned());
            }
        }
        let is_unfinished = entries.values().any(|position| *position != Position::Finished);
        let is_finished = !is_unfinished && plan.read.is_empty() && plan.blocked.is_empty();
        plan.is_drained = !stream.is_open && is_finished;
        plan
    }

    /// When the last one was made of the shards that are known, and that the listing lacks although
    /// they are kept: with them it is not known what comes before them, and is finished by definition.
    fn missing(
        &self,
        stream: &StreamDescription,
        entries: &ShardPositions,
        ancestors: &BTreeSet<&ShardId>,
        kept_since: UnixSeconds,
    ) -> Option<UnixSeconds> {
        let known = entries.keys().chain(ancestors.iter().copied());
        let unlisted = known.filter(|id| !stream.has(id) && !self.pruned.contains(id));
        let missing = unlisted.filter(|id| !self.trimmed.contains(id));
        missing.filter_map(ShardId::created_at).filter(|made_at| *made_at >= kept_since).max()
    }

    /// Every ancestor of a shard that has an entry.
    fn ancestors<'a>(&'a self, entries: &ShardPositions) -> BTreeSet<&'a ShardId> {
        let mut ancestors = BTreeSet::new();
        for id in entries.keys() {
            let mut next = self.parents.get(id);
            // Stops at a known one, and so also at a loop, which no stream has.
            while let Some(parent) = next.filter(|parent| ancestors.insert(*parent)) {
                next = self.parents.get(parent);
            }
        }
        ancestors
    }
}
