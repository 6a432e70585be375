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

type Shards<'a> = &'a [(&'a str, Option<&'a str>)];

const SHARDS: Shards<'_> =
    &[("a", None), ("b", Some("a")), ("c", Some("a")), ("d", Some("c")), ("other", None)];

fn description(is_open: bool, shards: Shards<'_>) -> StreamDescription {
    let shard =
        |(name, parent): &(&str, Option<&str>)| Shard { id: id(name), parent: parent.map(id) };
    StreamDescription::with_shards(is_open, &shards.iter().map(shard).collect::<Vec<_>>())
}

fn listing(shards: Shards<'_>) -> Listing {
    let streams = BTreeMap::from([(label(), description(true, shards))]);
    let started = Instant::now();
    Listing { streams, replaced_by: None, started, started_at: None, ended: started, pages: 1 }
}

fn entries(positions: &[(&str, Position)]) -> ShardPositions {
    positions.iter().map(|(name, position)| (id(name), position.clone())).collect()
}

fn after(n: u32) -> Position {
    Position::After(SequenceNumber::parse(&n.to_string()).unwrap())
}

/// A graph that has observed these listings, in order.
fn observed(listings: &[Shards<'_>], entries: &ShardPositions) -> ShardGraph {
    let mut graph = ShardGraph::default();
    for shards in listings {
        graph.observe(&listing(shards), entries, UnixSeconds(7), Instant::now());
    }
    graph
}

/// The shards to read according to the listing `now`, after the listings `before`.
fn read(before: &[Shards<'_>], now: Shards<'_>, entries: &ShardPositions) -> ShardPositions {
    let graph = observed(&[before, &[now]].concat(), entries);
    graph.plan(&description(true, now), entries, LONG_AGO).read
}

#[test]
fn begins_with_shards_without_a_parent() {
    let roots = entries(&[("a", Position::TrimHorizon), ("other", Position::TrimHorizon)]);
    assert_eq!(read(&[], SHARDS, &ShardPositions::new()), roots);
}

#[test]
fn reads_a_child_from_its_start_after_its_parent_is_finished() {
    let known = entries(&[("a", after(5)), ("other", Position::Latest)]);
    assert_eq!(read(&[], SHARDS, &known), known);
    let known = entries(&[("a", Position::Finished), ("other", Position::Latest)]);
    let children =
        [("b", Position::TrimHorizon), ("c", Position::TrimHorizon), ("other", Position::Latest)];
    assert_eq!(read(&[], SHARDS, &known), entries(&children));
}

#[tokio::test(start_paused = true)]
async fn keeps_an_entry_until_listings_lack_its_shard_for_an_hour() {
    let known = entries(&[("a", Position::Finished), ("b", Position::TrimHorizon)]);
    let mut graph = ShardGraph::default();
    let mut forgotten =
        |shards| graph.observe(&listing(shards), &known, UnixSeconds(7), Instant::now());
    let without_a: Shards<'_> = &[("b", Some("a"))];
    assert_eq!(forgotten(SHARDS), []);
    assert_eq!(forgotten(without_a), []);
    tokio::time::advance(FORGET_AFTER * 4).await;
    assert_eq!(forgotten(without_a), [], "there was no listing in between");
    assert_eq!(forgotten(SHARDS), [], "the listing was stale");
    assert_eq!(forgotten(without_a), []);
    for _ in 1..FORGET_AFTER.as_secs() / MAX_LISTING_INTERVAL.as_secs() {
        tokio::time::advance(MAX_LISTING_INTERVAL).await;
        assert_eq!(forgotten(without_a), []);
    }
    tokio::time::advance(MAX_LISTING_INTERVAL).await;
    assert_eq!(forgotten(without_a), [id("a")]);
}

#[tokio::test(start_paused = true)]
async fn begins_no_shard_older_than_a_known_one_that_a_listing_lacks() {
    let [old, middle, new] = [
        "shardId-00000001733213200000-a",
        "shardId-00000001733227600000-b",
        "shardId-00000001733242000000-c",
    ];
    let without_middle: Shards<'_> = &[(old, None), (new, Some(middle))];
    let known = entries(&[(new, after(9))]);
    let plan = |graph: &ShardGraph, kept_since| {
        let plan = graph.plan(&description(true, without_middle), &known, UnixSeconds(kept_since));
        plan.read.contains_key(&id(old))
    };
    let mut graph = observed(&[without_middle], &known);
    assert!(!plan(&graph, 1_733_200_000), "the old shard can be finished, and its entry removed");
    assert!(plan(&graph, 1_733_227_601), "the missing shard is trimmed");
    // A finished shard that was not listed for an hour delays no other.
    let finished = entries(&[(middle, Position::Finished), (new, after(9))]);
    for _ in 0..=FORGET_AFTER.as_secs() / MAX_LISTING_INTERVAL.as_secs() {
        graph.observe(&listing(without_middle), &finished, UnixSeconds(7), Instant::now());
        tokio::time::advance(MAX_LISTING_INTERVAL).await;
    }
    assert!(plan(&graph, 1_733_200_000));
}

#[test]
fn reads_a_sibling_that_is_listed_late() {
    let known = entries(&[("a", Position::Finished), ("b", after(9)), ("other", after(1))]);
    let read = read(&[], SHARDS, &known);
    assert_eq!(read.get(&id("c")), Some(&Position::TrimHorizon));
    assert_eq!(read.get(&id("a")), None, "the parent is not read again");
    assert_eq!(read.get(&id("d")), None, "its child waits");
}

#[test]
fn begins_no_shard_from_a_stale_listing() {
    let known = entries(&[("c", after(3))]);
    let stale: Shards<'_> = &[("a", None), ("b", Some("a"))];
    assert_eq!(read(&[], stale, &known), known, "c continues, a and b do not begin");
}

#[test]
fn begins_children_of_finished_shards_from_a_stale_listing() {
    let known = entries(&[("a", Position::Finished), ("other", after(3))]);
    let stale: Shards<'_> = &[("a", None), ("b", Some("a")), ("unrelated", None)];
    let expected = entries(&[("b", Position::TrimHorizon), ("other", after(3))]);
    assert_eq!(read(&[], stale, &known), expected);
}

#[test]
fn treats_ancestors_of_entries_as_finished() {
    let known = entries(&[("d", after(9)), ("other", after(1))]);
    let read = read(&[], SHARDS, &known);
    assert_eq!(read.keys().collect::<Vec<_>>(), [&id("b"), &id("d"), &id("other")]);
}

#[test]
fn blocks_an_unlisted_child_until_its_parent_is_finished() {
    let known = entries(&[("c", Position::Latest), ("d", Position::Latest)]);
    let stale: Shards<'_> = &[("a", None), ("c", Some("a"))];
    let expected = entries(&[("c", Position::Latest)]);
    assert_eq!(read(&[SHARDS], stale, &known), expected);
}

#[test]
fn reads_an_unlisted_shard_so_that_its_children_can_begin() {
    let known = entries(&[("unlisted", Position::Latest)]);
    let listed: Shards<'_> = &[("child", Some("unlisted"))];
    assert_eq!(read(&[], listed, &known), known);
    let known = entries(&[("unlisted", Position::Finished)]);
    assert_eq!(read(&[], listed, &known), entries(&[("child", Position::TrimHorizon)]));
}

#[test]
fn ends_a_cycle_of_parents() {
    let _ = read(&[], &[("a", Some("b")), ("b", Some("a"))], &entries(&[("a", after(1))]));
}

#[test]
fn waits_for_an_unlisted_parent_until_it_is_known_to_be_trimmed() {
    let shards: Shards<'_> = &[("b", Some("a")), ("c", Some("b"))];
    let stream = description(true, shards);
    let mut graph = observed(&[shards], &ShardPositions::new());
    let plan = graph.plan(&stream, &ShardPositions::new(), LONG_AGO);
    assert_eq!(
        (plan.read, plan.missing_parents),
        (ShardPositions::new(), BTreeSet::from([id("a")]))
    );
    graph.observe_trimmed(id("a"));
    let plan = graph.plan(&stream, &ShardPositions::new(), LONG_AGO);
    assert_eq!(
        (plan.read, plan.missing_parents),
        (entries(&[("b", Position::TrimHorizon)]), BTreeSet::new())
    );
    assert_eq!(plan.blocked, [id("c")]);
    // A later listing shows the parent.
    let both: Shards<'_> = &[("a", None), ("b", Some("a"))];
    graph.observe(&listing(both), &ShardPositions::new(), UnixSeconds(7), Instant::now());
    let plan = graph.plan(&description(true, both), &ShardPositions::new(), LONG_AGO);
    assert_eq!(plan.read, entries(&[("a", Position::TrimHorizon)]));
}

#[test]
fn continues_an_unfinished_shard_without_its_parent() {
    let shards: Shards<'_> = &[("b", Some("trimmed"))];
    let known = entries(&[("b", after(1))]);
    assert_eq!(read(&[], shards, &known), known);
    let unfinished = entries(&[("trimmed", after(1))]);
    assert_eq!(read(&[], shards, &unfinished), unfinished, "b waits for its parent");
}

#[test]
fn prunes_finished_entries_without_reading_their_shards_again() {
    let names: Vec<_> =
        (0..PRUNE_THRESHOLD).map(|n| (format!("p{n:05}"), format!("q{n:05}"))).collect();
    let mut shards = Vec::new();
    let mut known = ShardPositions::new();
    for (parent, child) in &names {
        shards.extend([(parent.as_str(), None), (child.as_str(), Some(parent.as_str()))]);
        known.extend([(id(parent), Position::Finished), (id(child), after(1))]);
    }
    let mut graph = ShardGraph::default();
    let pruned = graph.observe(&listing(&shards), &known, UnixSeconds(7), Instant::now());
    assert_eq!(pruned.len(), PRUNE_THRESHOLD);
    for parent in &pruned {
        known.remove(parent);
    }
    // The children finish too. A listing that lacks them must not begin their parents.
    let children: ShardPositions =
        known.keys().map(|id| (id.clone(), Position::Finished)).collect();
    let parents: Vec<_> = names.iter().map(|(parent, _)| (parent.as_str(), None)).collect();
    let stale = description(true, &parents);
    let plan = graph.plan(&stale, &children, LONG_AGO);
    assert_eq!(plan.read, ShardPositions::new());
}

#[test]
fn drains_a_disabled_stream_once_all_shards_are_finished() {
    let shards: Shards<'_> = &[("a", None), ("b", Some("a"))];
    let is_drained = |is_open, known: &[(&str, Position)]| {
        let known = entries(known);
        let graph = observed(&[shards], &known);
        let stream = description(is_open, shards);
        graph.plan(&stream, &known, LONG_AGO).is_drained
    };
    let finished = Position::Finished;
    assert!(is_drained(false, &[("a", finished.clone()), ("b", finished.clone())]));
    assert!(!is_drained(true, &[("a", finished.clone()), ("b", finished.clone())]));
    assert!(!is_drained(false, &[("a", finished.clone()), ("b", after(1))]));
    assert!(!is_drained(false, &[("a", finished)]));
    assert!(!is_drained(false, &[]));
}
