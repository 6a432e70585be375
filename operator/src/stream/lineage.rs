//! Which shards to read now: a child only once its parent is finished, every shard once, none
//! forgotten. Pure, from a listing and what is remembered.
//!
//! A listing may be behind: it can lack a shard that it had, show a child late, or no longer show a
//! parent (trimmed). So what is known of a shard is what its entry says; an entry stays for as long as
//! its shard is listed; parents are remembered over listings; and while a shard that is still read is
//! missing from the listing, no shard without an entry is begun. A shard without an entry that is an
//! ancestor of one that has one is finished by definition.

use std::collections::{BTreeMap, BTreeSet};

use super::Shard;
use crate::record::{Position, ShardId};

/// What follows from a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Shards that may be read now and from where; those without an entry yet among them.
    pub read: BTreeMap<ShardId, Position>,
    /// Finished shards that are not listed: their entries go once that has been so for a while.
    pub unlisted: BTreeSet<ShardId>,
}

/// The entries of a notifier that begins at `Latest`. Shards without children are read from that
/// moment on, and so are their parents, which may have rolled while they were listed; what the
/// ancestors before them hold is older.
pub fn initial(listing: &[Shard]) -> BTreeMap<ShardId, Position> {
    let parents: BTreeSet<_> = listing.iter().filter_map(|shard| shard.parent.as_ref()).collect();
    let leaves = || listing.iter().filter(|shard| !parents.contains(&shard.id));
    let last: BTreeSet<_> =
        leaves().flat_map(|leaf| [Some(&leaf.id), leaf.parent.as_ref()]).collect();
    let position = |shard: &Shard| {
        if last.contains(&Some(&shard.id)) { Position::Latest } else { Position::Finished }
    };
    listing.iter().map(|shard| (shard.id.clone(), position(shard))).collect()
}

/// What to read and what to forget, given a complete listing, the parents known from it and from
/// earlier ones, and all entries.
pub fn plan(
    listing: &[Shard],
    parents: &BTreeMap<ShardId, ShardId>,
    entries: &BTreeMap<ShardId, Position>,
) -> Plan {
    let listed: BTreeSet<_> = listing.iter().map(|shard| &shard.id).collect();
    let ancestors = ancestors(parents, entries);
    let may_read = |id: &ShardId| match parents.get(id) {
        None => true,
        Some(parent) => match entries.get(parent) {
            Some(position) => *position == Position::Finished,
            // Listed, it comes first, unless it was finished before; gone, it is not waited for.
            None => !listed.contains(parent) || ancestors.contains(parent),
        },
    };
    let mut plan = Plan::default();
    let mut is_behind = false;
    for (id, position) in entries {
        let is_listed = listed.contains(id);
        if *position == Position::Finished {
            if !is_listed {
                plan.unlisted.insert(id.clone());
            }
            continue;
        }
        is_behind |= !is_listed;
        if may_read(id) {
            plan.read.insert(id.clone(), position.clone());
        }
    }
    if !is_behind {
        let is_new = |id: &ShardId| !entries.contains_key(id) && !ancestors.contains(id);
        let begun = listed.iter().filter(|id| is_new(id) && may_read(id));
        plan.read.extend(begun.map(|id| ((*id).clone(), Position::Start)));
    }
    plan
}

/// Every ancestor of a shard that has an entry.
fn ancestors<'a>(
    parents: &'a BTreeMap<ShardId, ShardId>,
    entries: &BTreeMap<ShardId, Position>,
) -> BTreeSet<&'a ShardId> {
    let mut ancestors = BTreeSet::new();
    for id in entries.keys() {
        let mut next = parents.get(id);
        // Stops at a known one, and so also at a loop, which no stream has.
        while let Some(parent) = next.filter(|parent| ancestors.insert(*parent)) {
            next = parents.get(parent);
        }
    }
    ancestors
}

/// Adds the parents that a listing shows to those that are known.
pub fn learn(parents: &mut BTreeMap<ShardId, ShardId>, listing: &[Shard]) {
    for Shard { id, parent } in listing {
        if let Some(parent) = parent {
            parents.insert(id.clone(), parent.clone());
        }
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

    /// With the parents that this listing shows, and no others.
    fn plan(listing: &[Shard], entries: &BTreeMap<ShardId, Position>) -> Plan {
        let mut parents = BTreeMap::new();
        learn(&mut parents, listing);
        super::plan(listing, &parents, entries)
    }

    fn after(n: u32) -> Position {
        Position::After(SequenceNumber::parse(&n.to_string()).unwrap())
    }

    const FAMILY: &[(&str, Option<&str>)] =
        &[("a", None), ("b", Some("a")), ("c", Some("a")), ("d", Some("c")), ("other", None)];

    #[test]
    fn latest_enters_leaves_and_their_parents_and_finishes_what_is_older() {
        let entered = initial(&listing(FAMILY));
        let (latest, finished) = (Position::Latest, Position::Finished);
        let expected = entries(&[
            ("a", latest.clone()),
            ("b", latest.clone()),
            ("c", latest.clone()),
            ("d", latest.clone()),
            ("other", latest.clone()),
        ]);
        assert_eq!(entered, expected, "a is the parent of b, c of d");
        let long = listing(&[("a", None), ("b", Some("a")), ("c", Some("b"))]);
        let expected = entries(&[("a", finished), ("b", latest.clone()), ("c", latest)]);
        assert_eq!(initial(&long), expected);
        assert_eq!(plan(&long, &expected).read, entries(&[("b", Position::Latest)]));
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
    fn an_entry_stays_while_its_shard_is_listed() {
        let known = entries(&[("a", Position::Finished), ("b", Position::Start)]);
        assert!(plan(&listing(FAMILY), &known).unlisted.is_empty());
        let known = entries(&[("trimmed", Position::Finished)]);
        assert_eq!(plan(&listing(FAMILY), &known).unlisted, BTreeSet::from([id("trimmed")]));
    }

    #[test]
    fn a_sibling_listed_late_is_read() {
        let known = entries(&[("a", Position::Finished), ("b", after(9)), ("other", after(1))]);
        let read = plan(&listing(FAMILY), &known).read;
        assert_eq!(read.get(&id("c")), Some(&Position::Start));
        assert_eq!(read.get(&id("a")), None, "the parent itself is not read again");
        assert_eq!(read.get(&id("d")), None, "its child waits");
    }

    #[test]
    fn a_listing_that_is_behind_begins_nothing() {
        let behind = listing(&[("a", None), ("b", Some("a"))]);
        let known = entries(&[("c", after(3))]);
        assert_eq!(plan(&behind, &known).read, known, "c is read on, a and b are not begun");
    }

    #[test]
    fn an_ancestor_of_an_entry_is_finished_though_it_has_none() {
        let known = entries(&[("d", after(9)), ("other", after(1))]);
        let read = plan(&listing(FAMILY), &known).read;
        assert_eq!(read.keys().collect::<Vec<_>>(), [&id("b"), &id("d"), &id("other")]);
    }

    #[test]
    fn a_child_missing_from_the_listing_still_waits_for_its_parent() {
        let mut parents = BTreeMap::new();
        learn(&mut parents, &listing(FAMILY));
        let known = entries(&[("c", Position::Latest), ("d", Position::Latest)]);
        let behind = listing(&[("a", None), ("b", Some("a")), ("c", Some("a"))]);
        let read = super::plan(&behind, &parents, &known).read;
        assert_eq!(read, entries(&[("c", Position::Latest)]));
    }

    #[test]
    fn a_loop_of_parents_ends() {
        let shards = listing(&[("a", Some("b")), ("b", Some("a"))]);
        let _ = plan(&shards, &entries(&[("a", after(1))]));
    }

    #[test]
    fn a_parent_that_is_no_longer_listed_is_not_waited_for() {
        let shards = listing(&[("b", Some("trimmed"))]);
        assert_eq!(plan(&shards, &BTreeMap::new()).read, entries(&[("b", Position::Start)]));
        let unfinished = entries(&[("trimmed", after(1))]);
        assert_eq!(plan(&shards, &unfinished).read, unfinished, "but one still being read is");
    }
}
