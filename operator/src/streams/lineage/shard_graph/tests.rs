use crate::model::{SequenceNumber, StreamLabel};
use crate::streams::lineage::shard_graph::*;
use crate::streams::service::streams::Shard;

fn label() -> StreamLabel {
    StreamLabel::new("2024-12-03T08:06:15.779")
}

fn id(name: &str) -> ShardId {
    ShardId::new(&label(), name)
}

const LONG_AGO: UnixSeconds = UnixSeconds(0);

type Family<'a> = &'a [(&'a str, Option<&'a str>)];

const FAMILY: Family<'_> =
    &[("a", None), ("b", Some("a")), ("c", Some("a")), ("d", Some("c")), ("other", None)];

fn described(is_open: bool, shards: Family<'_>) -> StreamDescription {
    let shard =
        |(name, parent): &(&str, Option<&str>)| Shard { id: id(name), parent: parent.map(id) };
    StreamDescription::with_shards(is_open, &shards.iter().map(shard).collect::<Vec<_>>())
}

fn listing(shards: Family<'_>) -> Listing {
    let streams = BTreeMap::from([(label(), described(true, shards))]);
    let begun = Instant::now();
    Listing { streams, replaced_by: None, started: begun, started_at: None, ended: begun, pages: 1 }
}

fn entries(positions: &[(&str, Position)]) -> ShardPositions {
    positions.iter().map(|(name, position)| (id(name), position.clone())).collect()
}

fn after(n: u32) -> Position {
    Position::After(SequenceNumber::parse(&n.to_string()).unwrap())
}

/// A lineage that has seen these listings, one after the other.
fn knowing(listings: &[Family<'_>], entries: &ShardPositions) -> ShardGraph {
    let mut lineage = ShardGraph::default();
    for shards in listings {
        lineage.observe(&listing(shards), entries, UnixSeconds(7), Instant::now());
    }
    lineage
}

/// What is to be read given this listing, and those before it.
fn read(before: &[Family<'_>], now: Family<'_>, entries: &ShardPositions) -> ShardPositions {
    let lineage = knowing(&[before, &[now]].concat(), entries);
    lineage.plan(&described(true, now), entries, LONG_AGO).read
}

#[test]
fn reading_begins_with_the_roots() {
    let roots = entries(&[("a", Position::Start), ("other", Position::Start)]);
    assert_eq!(read(&[], FAMILY, &ShardPositions::new()), roots);
}

#[test]
fn a_child_waits_for_its_parent_and_is_read_from_its_start() {
    let known = entries(&[("a", after(5)), ("other", Position::Latest)]);
    assert_eq!(read(&[], FAMILY, &known), known);
    let known = entries(&[("a", Position::Finished), ("other", Position::Latest)]);
    let children = [("b", Position::Start), ("c", Position::Start), ("other", Position::Latest)];
    assert_eq!(read(&[], FAMILY, &known), entries(&children));
}

#[tokio::test(start_paused = true)]
async fn an_entry_stays_while_its_shard_is_listed_and_an_hour_more() {
    let known = entries(&[("a", Position::Finished), ("b", Position::Start)]);
    let mut lineage = ShardGraph::default();
    let mut forgotten =
        |shards| lineage.observe(&listing(shards), &known, UnixSeconds(7), Instant::now());
    let without_a: Family<'_> = &[("b", Some("a"))];
    assert_eq!(forgotten(FAMILY), []);
    assert_eq!(forgotten(without_a), []);
    tokio::time::advance(FORGET_AFTER * 4).await;
    assert_eq!(forgotten(without_a), [], "nobody looked meanwhile");
    assert_eq!(forgotten(FAMILY), [], "it was behind");
    assert_eq!(forgotten(without_a), []);
    for _ in 1..FORGET_AFTER.as_secs() / MAX_LISTING_INTERVAL.as_secs() {
        tokio::time::advance(MAX_LISTING_INTERVAL).await;
        assert_eq!(forgotten(without_a), []);
    }
    tokio::time::advance(MAX_LISTING_INTERVAL).await;
    assert_eq!(forgotten(without_a), [id("a")]);
}

/// Shards whose names tell when they were made, on two days.
#[tokio::test(start_paused = true)]
async fn nothing_older_than_a_known_shard_that_is_missing_is_begun() {
    let [old, middle, new] = [
        "shardId-00000001733213200000-a",
        "shardId-00000001733227600000-b",
        "shardId-00000001733242000000-c",
    ];
    let without_middle: Family<'_> = &[(old, None), (new, Some(middle))];
    let known = entries(&[(new, after(9))]);
    let plan = |lineage: &ShardGraph, kept_since| {
        let plan = lineage.plan(&described(true, without_middle), &known, UnixSeconds(kept_since));
        plan.read.contains_key(&id(old))
    };
    let mut lineage = knowing(&[without_middle], &known);
    assert!(!plan(&lineage, 1_733_200_000), "it may be finished, and its entry gone");
    assert!(plan(&lineage, 1_733_227_601), "nothing is missing: that is no longer kept");
    // One that was finished and not listed for an hour is not awaited.
    let finished = entries(&[(middle, Position::Finished), (new, after(9))]);
    for _ in 0..=FORGET_AFTER.as_secs() / MAX_LISTING_INTERVAL.as_secs() {
        lineage.observe(&listing(without_middle), &finished, UnixSeconds(7), Instant::now());
        tokio::time::advance(MAX_LISTING_INTERVAL).await;
    }
    assert!(plan(&lineage, 1_733_200_000));
}

#[test]
fn a_sibling_listed_late_is_read() {
    let known = entries(&[("a", Position::Finished), ("b", after(9)), ("other", after(1))]);
    let read = read(&[], FAMILY, &known);
    assert_eq!(read.get(&id("c")), Some(&Position::Start));
    assert_eq!(read.get(&id("a")), None, "the parent itself is not read again");
    assert_eq!(read.get(&id("d")), None, "its child waits");
}

#[test]
fn a_listing_that_is_behind_begins_nothing() {
    let known = entries(&[("c", after(3))]);
    let behind: Family<'_> = &[("a", None), ("b", Some("a"))];
    assert_eq!(read(&[], behind, &known), known, "c is read on, a and b are not begun");
}

#[test]
fn a_listing_that_is_behind_does_not_keep_children_of_finished_shards_from_being_read() {
    let known = entries(&[("a", Position::Finished), ("other", after(3))]);
    let behind: Family<'_> = &[("a", None), ("b", Some("a")), ("stranger", None)];
    let expected = entries(&[("b", Position::Start), ("other", after(3))]);
    assert_eq!(read(&[], behind, &known), expected);
}

#[test]
fn an_ancestor_of_an_entry_is_finished_though_it_has_none() {
    let known = entries(&[("d", after(9)), ("other", after(1))]);
    let read = read(&[], FAMILY, &known);
    assert_eq!(read.keys().collect::<Vec<_>>(), [&id("b"), &id("d"), &id("other")]);
}

#[test]
fn a_child_missing_from_the_listing_still_waits_for_its_parent() {
    let known = entries(&[("c", Position::Latest), ("d", Position::Latest)]);
    let behind: Family<'_> = &[("a", None), ("c", Some("a"))];
    let expected = entries(&[("c", Position::Latest)]);
    assert_eq!(read(&[FAMILY], behind, &known), expected);
}

#[test]
fn a_shard_that_is_not_listed_is_tried_and_so_keeps_nobody_waiting_for_long() {
    let known = entries(&[("vanished", Position::Latest)]);
    let left: Family<'_> = &[("child", Some("vanished"))];
    assert_eq!(read(&[], left, &known), known);
    let known = entries(&[("vanished", Position::Finished)]);
    assert_eq!(read(&[], left, &known), entries(&[("child", Position::Start)]));
}

#[test]
fn a_loop_of_parents_ends() {
    let _ = read(&[], &[("a", Some("b")), ("b", Some("a"))], &entries(&[("a", after(1))]));
}

#[test]
fn a_parent_that_is_not_listed_is_doubted_and_waited_for_until_it_is_known_to_be_gone() {
    let shards: Family<'_> = &[("b", Some("a")), ("c", Some("b"))];
    let stream = described(true, shards);
    let mut lineage = knowing(&[shards], &ShardPositions::new());
    let plan = lineage.plan(&stream, &ShardPositions::new(), LONG_AGO);
    assert_eq!(
        (plan.read, plan.missing_parents),
        (ShardPositions::new(), BTreeSet::from([id("a")]))
    );
    lineage.observe_trimmed(id("a"));
    let plan = lineage.plan(&stream, &ShardPositions::new(), LONG_AGO);
    assert_eq!(
        (plan.read, plan.missing_parents),
        (entries(&[("b", Position::Start)]), BTreeSet::new())
    );
    assert_eq!(plan.blocked, [id("c")]);
    // It was listed after all.
    let both: Family<'_> = &[("a", None), ("b", Some("a"))];
    lineage.observe(&listing(both), &ShardPositions::new(), UnixSeconds(7), Instant::now());
    let plan = lineage.plan(&described(true, both), &ShardPositions::new(), LONG_AGO);
    assert_eq!(plan.read, entries(&[("a", Position::Start)]));
}

#[test]
fn what_is_still_read_goes_on_whatever_became_of_its_parent() {
    let shards: Family<'_> = &[("b", Some("trimmed"))];
    let known = entries(&[("b", after(1))]);
    assert_eq!(read(&[], shards, &known), known);
    let unfinished = entries(&[("trimmed", after(1))]);
    assert_eq!(read(&[], shards, &unfinished), unfinished, "b waits for it");
}

#[test]
fn with_many_entries_finished_ones_go_and_their_shards_are_not_read_again() {
    let names: Vec<_> =
        (0..PRUNE_THRESHOLD).map(|n| (format!("p{n:05}"), format!("q{n:05}"))).collect();
    let mut shards = Vec::new();
    let mut known = ShardPositions::new();
    for (parent, child) in &names {
        shards.extend([(parent.as_str(), None), (child.as_str(), Some(parent.as_str()))]);
        known.extend([(id(parent), Position::Finished), (id(child), after(1))]);
    }
    let mut lineage = ShardGraph::default();
    let pruned = lineage.observe(&listing(&shards), &known, UnixSeconds(7), Instant::now());
    assert_eq!(pruned.len(), PRUNE_THRESHOLD);
    for parent in &pruned {
        known.remove(parent);
    }
    // The children finish too; a listing that lacks them must not begin their parents.
    let children: ShardPositions =
        known.keys().map(|id| (id.clone(), Position::Finished)).collect();
    let parents: Vec<_> = names.iter().map(|(parent, _)| (parent.as_str(), None)).collect();
    let behind = described(true, &parents);
    let plan = lineage.plan(&behind, &children, LONG_AGO);
    assert_eq!(plan.read, ShardPositions::new());
}

#[test]
fn a_stream_is_drained_once_it_is_disabled_and_all_is_finished() {
    let shards: Family<'_> = &[("a", None), ("b", Some("a"))];
    let drained = |is_open, known: &[(&str, Position)]| {
        let known = entries(known);
        let lineage = knowing(&[shards], &known);
        let stream = described(is_open, shards);
        lineage.plan(&stream, &known, LONG_AGO).is_drained
    };
    let finished = Position::Finished;
    assert!(drained(false, &[("a", finished.clone()), ("b", finished.clone())]));
    assert!(!drained(true, &[("a", finished.clone()), ("b", finished.clone())]));
    assert!(!drained(false, &[("a", finished.clone()), ("b", after(1))]));
    assert!(!drained(false, &[("a", finished)]));
    assert!(!drained(false, &[]));
}
