//! Which shards to read now: a child only once its parent is finished, every shard once, none
//! forgotten. Pure, from a listing and what is remembered.
//!
//! A listing may be behind: a child can show up late, a parent can be gone (trimmed). A shard whose
//! parent is neither listed nor remembered therefore waits for nobody, and a shard that has no
//! entry but is an ancestor of one that has is finished: its entry was dropped for that reason.

use std::collections::{BTreeMap, BTreeSet};

use super::Shard;
use crate::record::{Position, ShardId};

/// What follows from a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Shards that may be read now and from where; those without an entry yet among them.
    pub read: BTreeMap<ShardId, Position>,
    /// Finished shards whose entries have served their purpose.
    pub forget: Vec<ShardId>,
}

/// The entries of a notifier that begins at `Latest`: every shard without children. What its
/// ancestors hold is older.
pub fn initial(listing: &[Shard]) -> BTreeMap<ShardId, Position> {
    let parents: BTreeSet<_> = listing.iter().filter_map(|shard| shard.parent.as_ref()).collect();
    listing
        .iter()
        .filter(|shard| !parents.contains(&shard.id))
        .map(|shard| (shard.id.clone(), Position::Latest))
        .collect()
}

/// What to read and what to forget, given a complete listing and all entries.
pub fn plan(listing: &[Shard], entries: &BTreeMap<ShardId, Position>) -> Plan {
    let tree = Tree::new(listing, entries);
    let mut plan = Plan::default();
    for (id, position) in entries {
        match position {
            Position::Finished if tree.has_served(id) => plan.forget.push(id.clone()),
            Position::Finished => {}
            unfinished if tree.may_read(id) => {
                plan.read.insert(id.clone(), unfinished.clone());
            }
            _waiting => {}
        }
    }
    for Shard { id, .. } in listing {
        if !entries.contains_key(id) && !tree.is_finished(id) && tree.may_read(id) {
            plan.read.insert(id.clone(), Position::Start);
        }
    }
    plan
}

/// The listed shards by id, with what the entries say of them.
struct Tree<'a> {
    parents: BTreeMap<&'a ShardId, Option<&'a ShardId>>,
    entries: &'a BTreeMap<ShardId, Position>,
    /// Ancestors of shards that have an entry.
    ancestors: BTreeSet<&'a ShardId>,
}

impl<'a> Tree<'a> {
    fn new(listing: &'a [Shard], entries: &'a BTreeMap<ShardId, Position>) -> Self {
        let parents: BTreeMap<_, _> =
            listing.iter().map(|shard| (&shard.id, shard.parent.as_ref())).collect();
        let mut ancestors = BTreeSet::new();
        for id in entries.keys() {
            let mut parent = parents.get(id).copied().flatten();
            // Stops at a known ancestor, and so also at a loop, which no stream has.
            while let Some(ancestor) = parent.filter(|ancestor| ancestors.insert(*ancestor)) {
                parent = parents.get(ancestor).copied().flatten();
            }
        }
        Self { parents, entries, ancestors }
    }

    fn is_finished(&self, id: &ShardId) -> bool {
        match self.entries.get(id) {
            Some(position) => *position == Position::Finished,
            None => self.ancestors.contains(id),
        }
    }

    /// Whether no unfinished parent stands before this shard.
    fn may_read(&self, id: &ShardId) -> bool {
        match self.parents.get(id).copied().flatten() {
            None => true,
            Some(parent) => {
                let known = self.parents.contains_key(parent) || self.entries.contains_key(parent);
                !known || self.is_finished(parent)
            }
        }
    }

    /// Whether a finished shard's entry tells nothing any more.
    fn has_served(&self, id: &ShardId) -> bool {
        self.ancestors.contains(id) || !self.parents.contains_key(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::SequenceNumber;

    fn id(name: &str) -> ShardId {
        ShardId(name.to_owned())
    }

    fn listing(shards: &[(&str, Option<&str>)]) -> Vec<Shard> {
        shards.iter().map(|(name, parent)| Shard { id: id(name), parent: parent.map(id) }).collect()
    }

    fn entries(positions: &[(&str, Position)]) -> BTreeMap<ShardId, Position> {
        positions.iter().map(|(name, position)| (id(name), position.clone())).collect()
    }

    fn after(n: u32) -> Position {
        Position::After(SequenceNumber::parse(&n.to_string()).unwrap())
    }

    const FAMILY: &[(&str, Option<&str>)] =
        &[("a", None), ("b", Some("a")), ("c", Some("a")), ("d", Some("c")), ("other", None)];

    #[test]
    fn latest_enters_every_leaf_and_no_ancestor() {
        let entered = initial(&listing(FAMILY));
        let latest = Position::Latest;
        let expected = entries(&[("b", latest.clone()), ("d", latest.clone()), ("other", latest)]);
        assert_eq!(entered, expected);
        assert_eq!(plan(&listing(FAMILY), &entered).read, entered);
    }

    #[test]
    fn the_trim_horizon_begins_with_the_roots() {
        let plan = plan(&listing(FAMILY), &BTreeMap::new());
        assert_eq!(plan.read, entries(&[("a", Position::Start), ("other", Position::Start)]));
    }

    #[test]
    fn a_child_waits_for_its_parent_and_is_read_from_its_start() {
        let known = entries(&[("a", after(5)), ("other", Position::Latest)]);
        assert_eq!(plan(&listing(FAMILY), &known).read, known);
        let known = entries(&[("a", Position::Finished), ("other", Position::Latest)]);
        assert_eq!(
            plan(&listing(FAMILY), &known).read,
            entries(&[("b", Position::Start), ("c", Position::Start), ("other", Position::Latest)])
        );
    }

    #[test]
    fn a_finished_entry_is_forgotten_once_a_child_has_one() {
        let known = entries(&[("a", Position::Finished)]);
        assert_eq!(plan(&listing(FAMILY), &known).forget, []);
        let known = entries(&[("a", Position::Finished), ("b", Position::Start)]);
        assert_eq!(plan(&listing(FAMILY), &known).forget, [id("a")]);
        let known = entries(&[("trimmed", Position::Finished)]);
        assert_eq!(plan(&listing(FAMILY), &known).forget, [id("trimmed")]);
    }

    #[test]
    fn a_sibling_listed_late_is_read_though_the_parents_entry_is_gone() {
        let known = entries(&[("b", after(9)), ("other", after(1))]);
        let read = plan(&listing(FAMILY), &known).read;
        assert_eq!(read.get(&id("c")), Some(&Position::Start));
        assert_eq!(read.get(&id("a")), None, "the parent itself is not read again");
        assert_eq!(read.get(&id("d")), None, "its child waits");
    }

    #[test]
    fn a_parent_that_is_no_longer_listed_is_not_waited_for() {
        let shards = listing(&[("b", Some("trimmed"))]);
        assert_eq!(plan(&shards, &BTreeMap::new()).read, entries(&[("b", Position::Start)]));
        let unfinished = entries(&[("trimmed", after(1))]);
        assert_eq!(plan(&shards, &unfinished).read, unfinished, "but one still being read is");
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let shards = listing(&[("a", Some("b")), ("b", Some("a"))]);
        let _ = plan(&shards, &entries(&[("a", after(1))]));
    }
}
