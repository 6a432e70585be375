//! The worker on a scripted stream: every shard, in order, nothing lost, on a paused clock.

use jiff::Timestamp;
use stream_notifier::checkpoint::{Checkpoint, StartKind, StartPoint};
use stream_notifier::model::{EventName, Position, Record, UnixSeconds};
use stream_notifier::streams::{InitialPosition, IteratorStart, StreamErrorKind};
use stream_notifier::telemetry::Phase;
use stream_notifier_tests::fakes::{Call, NOW, STREAM, Worker, change, number, shard_id};

/// One connection that gets every change of `hoge`.
fn worker() -> Worker {
    let worker = Worker::new();
    worker.connections.put("connection", "hoge", "2026-01-01");
    worker
}

/// The same, reading one open shard from now on.
async fn reading() -> Worker {
    let mut worker = worker();
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    worker
}

/// The values that the connection got, in order.
fn values(worker: &Worker) -> Vec<u32> {
    let value = |message: String| {
        let message: serde_json::Value = serde_json::from_str(&message).unwrap();
        message["value"].as_str().unwrap().parse().unwrap()
    };
    worker.gateway.received("connection").into_iter().map(value).collect()
}

fn position(worker: &Worker, shard: &str) -> Option<Position> {
    worker.store.checkpoint()?.shards.get(&shard_id(shard)).cloned()
}

#[tokio::test(start_paused = true)]
async fn two_hundred_and_fifty_shards_on_three_pages_are_all_read() {
    let mut worker = worker();
    for n in 0..250 {
        let shard = format!("shard-{n:03}");
        worker.streams.open(&shard, None);
        worker.streams.append(&shard, change(n, &format!("item-{n}"), "hoge"));
    }
    worker.start("a", InitialPosition::Latest);
    worker.until("all are told", || worker.gateway.delivered() == 250).await;
    worker.started().await;
    let pages: Vec<_> = worker
        .streams
        .calls()
        .into_iter()
        .filter(|call| matches!(call, Call::Describe(_)))
        .collect();
    let after = |shard: &str| Call::Describe(Some(shard_id(shard)));
    assert_eq!(pages[..3], [Call::Describe(None), after("shard-099"), after("shard-199")]);
    let mut told = values(&worker);
    told.sort_unstable();
    assert_eq!(told, (0..250).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_child_is_read_after_its_parent_is_settled_and_from_the_moment_reading_began() {
    let mut worker = worker();
    worker.streams.open("parent", None);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    // The parent's last message takes a while, and its child is there already.
    worker.gateway.script("connection", &[(30_000, 200), (0, 200)]);
    worker.streams.append("parent", change(1, "fuga", "hoge"));
    worker.streams.open("child", Some("parent"));
    worker.streams.append("child", change(2, "fuga", "hoge"));
    worker.streams.close("parent");
    worker.after(29).await;
    assert_eq!(worker.streams.iterators("child"), [], "the parent's message is under way");
    worker.until("both are told", || values(&worker) == [1, 2]).await;
    let moment = IteratorStart::At(UnixSeconds(NOW.0 - 1));
    assert_eq!(worker.streams.iterators("child"), [moment], "never LATEST");
    worker.after(10).await;
    assert_eq!(position(&worker, "parent"), Some(Position::Finished), "while it is listed");
    assert_eq!(position(&worker, "child"), Some(Position::After(number(2))));
}

#[tokio::test(start_paused = true)]
async fn a_whole_family_is_read_from_the_trim_horizon_in_order() {
    let mut worker = worker();
    for (n, (shard, parent)) in
        [("a", None), ("b", Some("a")), ("c", Some("b")), ("d", Some("c"))].into_iter().enumerate()
    {
        let n = u32::try_from(n).unwrap();
        worker.streams.open(shard, parent);
        worker.streams.append(shard, change(2 * n, "fuga", "hoge"));
        worker.streams.append(shard, change(2 * n + 1, "fuga", "hoge"));
        if shard != "d" {
            worker.streams.close(shard);
        }
    }
    worker.start("a", InitialPosition::TrimHorizon);
    worker.until("all are told", || worker.gateway.delivered() == 8).await;
    assert_eq!(values(&worker), (0..8).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn latest_is_a_second_before_now_and_nothing_older_is_told() {
    let mut worker = worker();
    let mut old = change(1, "fuga", "hoge");
    old.approximate_creation_time = UnixSeconds(old.approximate_creation_time.0 - 2);
    worker.streams.open("grandparent", None);
    worker.streams.append("grandparent", old.clone());
    worker.streams.close("grandparent");
    worker.streams.open("parent", Some("grandparent"));
    worker.streams.append("parent", old.clone());
    worker.streams.close("parent");
    worker.streams.open("child", Some("parent"));
    worker.streams.append("child", old);
    worker.streams.append("child", change(2, "fuga", "hoge"));
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    worker.until("the new one is told", || values(&worker) == [2]).await;
    let now = change(2, "fuga", "hoge").approximate_creation_time.0;
    let moment = IteratorStart::At(UnixSeconds(now - 1));
    // Both may have rolled just now.
    for shard in ["grandparent", "parent", "child"] {
        assert_eq!(worker.streams.iterators(shard), vec![moment.clone()]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_rolls_while_it_is_listed_loses_nothing() {
    let mut worker = worker();
    for n in 0..150 {
        worker.streams.open(&format!("shard-{n:03}"), None);
    }
    worker.streams.roll_between_pages();
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    worker.until("its record is told", || values(&worker) == [1]).await;
}

/// A family whose parents are read to their end, each with one record.
fn family(worker: &Worker) {
    for (n, (shard, parent)) in [("a", None), ("b", Some("a")), ("c", Some("b"))].iter().enumerate()
    {
        worker.streams.open(shard, *parent);
        worker.streams.append(shard, change(u32::try_from(n).unwrap() + 1, "fuga", "hoge"));
        if *shard != "c" {
            worker.streams.close(shard);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_behind_reads_nothing_again() {
    let mut worker = worker();
    family(&worker);
    worker.start("a", InitialPosition::TrimHorizon);
    worker.until("all are told", || values(&worker) == [1, 2, 3]).await;
    worker.after(10).await;
    for hidden in [&["c"][..], &["b"], &["a", "b"], &["a", "b", "c"]] {
        for shard in hidden {
            worker.streams.hide(shard, true);
        }
        worker.after(100).await;
        for shard in hidden {
            worker.streams.hide(shard, false);
        }
        worker.after(100).await;
        assert_eq!(values(&worker), [1, 2, 3], "after {hidden:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_behind_after_a_restart_begins_nothing() {
    let mut worker = worker();
    family(&worker);
    stored(&worker, &[("c", Position::After(number(3)))]);
    worker.streams.hide("c", true);
    worker.start("a", InitialPosition::TrimHorizon);
    worker.after(100).await;
    assert_eq!(values(&worker), [0; 0]);
}

/// A checkpoint of an earlier worker.
fn stored(worker: &Worker, shards: &[(&str, Position)]) {
    let at = "2026-09-20T00:00:00Z".parse().unwrap();
    let start = StartPoint { stream: STREAM.to_owned(), kind: StartKind::TrimHorizon, at };
    let shards = shards.iter().map(|(shard, position)| (shard_id(shard), position.clone()));
    let holder = "before".to_owned();
    let read_at = Timestamp::from_second(NOW.0).unwrap();
    worker.store.write(&Checkpoint { holder, epoch: 3, start, read_at, shards: shards.collect() });
}

#[tokio::test(start_paused = true)]
async fn a_finished_shard_is_forgotten_once_it_is_long_gone_from_the_listing() {
    let mut worker = worker();
    family(&worker);
    worker.start("a", InitialPosition::TrimHorizon);
    worker.until("all are told", || values(&worker) == [1, 2, 3]).await;
    worker.streams.trim("a");
    worker.after(3_000).await;
    assert_eq!(position(&worker, "a"), Some(Position::Finished), "a listing may be behind");
    worker.after(700).await;
    assert_eq!(position(&worker, "a"), None);
    assert_eq!(position(&worker, "b"), Some(Position::Finished));
}

#[tokio::test(start_paused = true)]
async fn a_listing_that_is_behind_while_children_are_asked_for_reads_nothing_again() {
    let mut worker = worker();
    worker.streams.open("a", None);
    worker.streams.append("a", change(1, "fuga", "hoge"));
    worker.streams.close("a");
    worker.streams.open("b", Some("a"));
    worker.streams.append("b", change(2, "fuga", "hoge"));
    worker.start("a", InitialPosition::TrimHorizon);
    worker.started().await;
    worker.streams.hide("a", true);
    worker.streams.close("b");
    worker.after(8).await;
    worker.streams.hide("a", false);
    worker.after(60).await;
    assert_eq!(values(&worker), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn a_child_missing_from_a_listing_still_waits_for_its_parent() {
    let mut worker = worker();
    worker.streams.open("a", None);
    worker.streams.close("a");
    worker.streams.append("a", change(1, "fuga", "hoge"));
    worker.streams.open("b", Some("a"));
    worker.gateway.script("connection", &[(50_000, 200), (0, 200)]);
    worker.start("a", InitialPosition::Latest);
    worker.after(1).await;
    worker.streams.hide("b", true);
    worker.after(45).await;
    assert_eq!(worker.streams.iterators("b"), []);
    worker.started().await;
}

#[tokio::test(start_paused = true)]
async fn a_restart_between_a_shard_and_its_child_is_ready_and_finds_the_child() {
    let mut worker = worker();
    worker.streams.open("last", None);
    worker.streams.append("last", change(1, "fuga", "hoge"));
    worker.start("a", InitialPosition::TrimHorizon);
    worker.started().await;
    worker.streams.close("last");
    worker.after(10).await;
    assert_eq!(position(&worker, "last"), Some(Position::Finished));
    worker.stop().await;
    worker.start("a", InitialPosition::TrimHorizon);
    worker.after(60).await;
    assert_eq!(worker.picture().phase, Phase::Reading, "there is nothing to wait for");
    worker.streams.open("child", Some("last"));
    worker.after(60).await;
    assert_eq!(worker.streams.iterators("child"), [IteratorStart::Start]);
    assert_eq!(values(&worker), [1]);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_was_broken_by_hand_is_mended_or_made_again_without_a_loss() {
    let worker = reading().await;
    worker.after(60).await;
    let tells_pace = || worker.metrics.encode().contains("get_records_requests_per_month{");
    assert!(tells_pace());
    worker.gateway.everyone(0, 403);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.after(10).await;
    worker.store.scribble();
    // Something settles, so that it is written, and found to be unreadable.
    worker.streams.append("only", change(2, "fuga", "nobody"));
    worker.gateway.script("connection", &[(0, 200)]);
    worker.until("it is told", || worker.reasons() == ["CheckpointInvalid"]).await;
    worker.streams.append("only", change(3, "fuga", "hoge"));
    worker.after(60).await;
    assert!(!tells_pace(), "nothing is read");
    worker.store.delete();
    worker.until("the last is told", || values(&worker).last() == Some(&3)).await;
    assert_eq!(values(&worker)[0], 1);
    worker.started().await;
    assert!(worker.reasons().is_empty(), "{:?}", worker.reasons());
}

#[tokio::test(start_paused = true)]
async fn a_shard_held_up_by_its_messages_is_not_ready() {
    let mut worker = worker();
    // One alone could not hold up the others: it loses what it does not take.
    for n in 0..40 {
        worker.connections.put(&format!("deaf{n}"), &format!("hoge{n}"), "2026-01-01");
        worker.gateway.script(&format!("deaf{n}"), &[(0, 429)]);
    }
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    for n in 1..=20_000 {
        worker.streams.append("only", change(n, "fuga", &format!("hoge{}", n % 40)));
    }
    worker.until("it is told", || worker.reasons() == ["ShardBlocked"]).await;
    worker.until("it is over", || worker.reasons().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_shard_of_the_checkpoint_that_aged_out_does_not_hold_up_the_start() {
    let mut worker = worker();
    worker.streams.open("alive", None);
    stored(&worker, &[("aged-out", Position::After(number(1))), ("alive", Position::Start)]);
    worker.start("a", InitialPosition::TrimHorizon);
    worker.streams.append("alive", change(5, "fuga", "hoge"));
    worker.until("it is told", || values(&worker) == [5]).await;
    worker.started().await;
    assert!(worker.reasons().is_empty(), "{:?}", worker.picture());
}

#[tokio::test(start_paused = true)]
async fn ready_means_that_every_open_shard_has_answered() {
    let mut worker = worker();
    worker.gateway.script("connection", &[(200_000, 200), (0, 200)]);
    worker.streams.open("parent", None);
    worker.streams.append("parent", change(1, "fuga", "hoge"));
    worker.streams.close("parent");
    worker.streams.open("child", Some("parent"));
    worker.start("a", InitialPosition::TrimHorizon);
    worker.after(100).await;
    assert_eq!(worker.streams.iterators("child"), []);
    assert_eq!(worker.picture().phase, Phase::Starting, "the open shard was never asked");
    worker.started().await;
    assert_eq!(worker.streams.iterators("child").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_is_listed_and_never_found_is_told() {
    let worker = reading().await;
    worker.streams.never_find("only");
    worker.until("it is told", || worker.reasons() == ["ShardNotFound"]).await;
}

#[tokio::test(start_paused = true)]
async fn the_trouble_of_one_shard_is_not_cleared_by_another() {
    let mut worker = worker();
    worker.streams.open("bad", None);
    worker.streams.open("good", None);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    worker.streams.never_find("bad");
    worker.until("it is told", || worker.reasons() == ["ShardNotFound"]).await;
    worker.streams.append("good", change(1, "fuga", "hoge"));
    worker.until("the good one is read", || values(&worker) == [1]).await;
    worker.after(300).await;
    assert_eq!(worker.reasons(), ["ShardNotFound"]);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_panics_is_told_and_begins_anew_from_the_checkpoint() {
    let worker = reading().await;
    worker.streams.panic_on_records(true);
    let mut ready = 0;
    for _ in 0..600 {
        worker.after(1).await;
        ready += u32::from(worker.picture().phase == Phase::Reading && worker.reasons().is_empty());
    }
    assert!(ready <= 1, "Ready for {ready} of 600 seconds");
    worker.streams.panic_on_records(false);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || values(&worker) == [1]).await;
    worker.started().await;
    assert!(worker.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_fault_of_the_store_after_an_idle_hour_is_no_trouble() {
    let worker = reading().await;
    worker.after(3600).await;
    worker.store.fail_next(2);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    for _ in 0..40 {
        worker.after(1).await;
        assert!(worker.reasons().is_empty(), "{:?}", worker.reasons());
    }
    assert_eq!(position(&worker, "only"), Some(Position::After(number(1))));
    worker.store.fail_next(1_000);
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("it is told", || worker.reasons() == ["CheckpointUnavailable"]).await;
    worker.store.fail_next(0);
    worker.until("it is over", || worker.reasons().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_answer_is_lost_is_found_to_have_arrived() {
    let mut worker = worker();
    worker.streams.open("only", None);
    worker.store.lose_answers(1);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    for n in 1..=20 {
        worker.store.lose_answers(1);
        worker.streams.append("only", change(n, "fuga", "hoge"));
        worker.after(10).await;
        assert_eq!(position(&worker, "only"), Some(Position::After(number(n))));
    }
    assert_eq!((worker.picture().phase, worker.reasons()), (Phase::Reading, vec![]));
    assert_eq!(worker.store.checkpoint().unwrap().holder, "a");
}

#[tokio::test(start_paused = true)]
async fn a_fault_of_the_store_at_the_stop_repeats_nothing() {
    let mut worker = reading().await;
    worker.after(10).await;
    for n in 1..=2 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
        worker.after(1).await;
    }
    worker.store.fail_next(3);
    worker.stop().await;
    worker.start("a", InitialPosition::Latest);
    worker.after(60).await;
    assert_eq!(values(&worker), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn what_is_older_than_the_start_is_skipped_in_a_child_too() {
    let mut worker = worker();
    worker.streams.open("parent", None);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    worker.streams.open("child", Some("parent"));
    let mut old = change(1, "fuga", "hoge");
    old.approximate_creation_time = UnixSeconds(old.approximate_creation_time.0 - 2);
    worker.streams.append("child", old);
    worker.streams.append("child", change(2, "fuga", "hoge"));
    worker.streams.close("parent");
    worker.until("the new one is told", || values(&worker) == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_page_is_read_although_it_has_no_next_iterator() {
    let mut worker = worker();
    worker.streams.open("only", None);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.streams.close("only");
    worker.start("a", InitialPosition::TrimHorizon);
    worker.until("both are told", || values(&worker) == [1, 2]).await;
    worker.until("it is finished", || position(&worker, "only") == Some(Position::Finished)).await;
}

#[tokio::test(start_paused = true)]
async fn an_expired_iterator_is_asked_for_again_after_the_last_record_read() {
    let worker = reading().await;
    // Before its first record: at the moment reading began, so that what came between is found.
    worker.streams.expire_iterators();
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("the first is told", || values(&worker) == [1]).await;
    worker.streams.expire_iterators();
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("the second is told", || values(&worker) == [1, 2]).await;
    let asked = worker.streams.iterators("only");
    let begun = asked[0].clone();
    assert!(matches!(begun, IteratorStart::At(_)));
    assert_eq!(asked, [begun.clone(), begun, IteratorStart::After(number(1))]);
}

#[tokio::test(start_paused = true)]
async fn throttling_and_outages_are_waited_out_at_the_same_place() {
    let worker = reading().await;
    for kind in [StreamErrorKind::Throttled, StreamErrorKind::Unavailable] {
        worker.streams.fail_next("Records", kind);
    }
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || values(&worker) == [1]).await;
    assert_eq!(worker.streams.iterators("only").len(), 1, "the iterator is still good");
    assert!(worker.reasons().is_empty(), "what passes by itself is no trouble yet");
}

#[tokio::test(start_paused = true)]
async fn access_denied_is_told_at_once_and_cleared_when_it_is_over() {
    let worker = reading().await;
    worker.streams.fail_next("Records", StreamErrorKind::AccessDenied);
    worker.until("it is told", || worker.reasons() == ["StreamAccessDenied"]).await;
    worker.until("it is over", || worker.reasons().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_writes_no_checkpoint() {
    let worker = reading().await;
    worker.after(10).await;
    let written = worker.store.saves().len();
    worker.after(3_000).await;
    assert_eq!(worker.store.saves().len(), written);
    // And a busy one writes no more often than every five seconds.
    for n in 1..=100 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
        worker.after(1).await;
    }
    let busy = worker.store.saves().len() - written;
    assert!((10..=21).contains(&busy), "{busy} checkpoints in 100 seconds");
}

#[tokio::test(start_paused = true)]
async fn a_crash_repeats_what_was_not_remembered_and_loses_nothing() {
    let mut worker = reading().await;
    // Killed before anything was remembered but that reading began.
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("the first is told", || values(&worker) == [1]).await;
    worker.kill().await;
    assert_eq!(position(&worker, "only"), Some(Position::Latest));
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.start("b", InitialPosition::Latest);
    worker.until("both are told", || values(&worker) == [1, 1, 2]).await;
    worker.after(10).await;
    assert_eq!(position(&worker, "only"), Some(Position::After(number(2))));
    // Killed with a checkpoint: nothing before it is repeated.
    worker.kill().await;
    worker.streams.append("only", change(3, "fuga", "hoge"));
    worker.start("c", InitialPosition::Latest);
    worker.until("the third is told", || values(&worker) == [1, 1, 2, 3]).await;
    assert_eq!(worker.streams.iterators("only").last(), Some(&IteratorStart::After(number(2))));
}

#[tokio::test(start_paused = true)]
async fn a_stop_finishes_what_is_under_way_and_remembers_it() {
    let mut worker = worker();
    worker.gateway.everyone(2_000, 200);
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    for n in 1..=5 {
        worker.streams.append("only", change(n, &format!("item-{n}"), "hoge"));
    }
    worker.until("the first is told", || values(&worker) == [1]).await;
    worker.stop().await;
    assert_eq!(values(&worker), [1, 2, 3, 4, 5]);
    assert_eq!(position(&worker, "only"), Some(Position::After(number(5))));
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    worker.after(60).await;
    assert_eq!(values(&worker), [1, 2, 3, 4, 5], "no repeat");
}

#[tokio::test(start_paused = true)]
async fn the_checkpoint_is_never_ahead_of_delivery() {
    let mut worker = worker();
    worker.connections.put("slow", "slow", "2026-01-01");
    worker.gateway.script("slow", &[(100_000, 200)]);
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.streams.append("only", change(2, "fuga", "slow"));
    worker.streams.append("only", change(3, "fuga", "hoge"));
    worker.until("the quick ones are told", || values(&worker) == [1, 3]).await;
    worker.after(60).await;
    assert_eq!(position(&worker, "only"), Some(Position::After(number(1))));
    worker.after(60).await;
    assert_eq!(position(&worker, "only"), Some(Position::After(number(3))));
}

#[tokio::test(start_paused = true)]
async fn changes_nobody_is_told_of_are_settled_with_what_comes_before_them() {
    let mut worker = worker();
    worker.connections.put("slow", "slow", "2026-01-01");
    worker.gateway.script("slow", &[(100_000, 200)]);
    worker.streams.open("only", None);
    let passed = |n| Record { event: EventName::Insert, ..change(n, "fuga", "hoge") };
    let told = |n, sk| change(n, "fuga", sk);
    for change in [
        passed(1),
        passed(2),
        told(3, "slow"),
        passed(4),
        passed(5),
        told(6, "hoge"),
        passed(7),
        passed(8),
    ] {
        worker.streams.append("only", change);
    }
    worker.start("a", InitialPosition::TrimHorizon);
    worker.until("the quick one is told", || values(&worker) == [6]).await;
    worker.after(60).await;
    assert_eq!(position(&worker, "only"), Some(Position::After(number(2))));
    worker.after(60).await;
    assert_eq!(position(&worker, "only"), Some(Position::After(number(8))));
}

#[tokio::test(start_paused = true)]
async fn a_second_holder_ends_the_first_and_the_checkpoint_never_goes_back() {
    let mut first = worker();
    first.streams.open("only", None);
    first.start("first", InitialPosition::Latest);
    first.started().await;
    let mut second = Worker::new();
    second.streams = first.streams.clone();
    second.connections = first.connections.clone();
    second.gateway = first.gateway.clone();
    second.store = first.store.clone();
    second.start("second", InitialPosition::Latest);
    second.started().await;
    for n in 1..=50 {
        first.streams.append("only", change(n, &format!("item-{n}"), "hoge"));
        first.after(1).await;
    }
    assert_eq!(
        (first.picture().phase, first.reasons()),
        (Phase::CheckpointTakenOver, vec!["CheckpointTakenOver"])
    );
    first.ended().await;
    second.after(10).await;
    let mut told = values(&second);
    told.sort_unstable();
    told.dedup();
    assert_eq!(told, (1..=50).collect::<Vec<_>>());
    let saves = second.store.saves();
    let only = shard_id("only");
    for pair in saves.windows(2) {
        assert!(pair[0].epoch <= pair[1].epoch);
        if let Some(Position::After(before)) = pair[0].shards.get(&only) {
            let after = &pair[1].shards[&only];
            assert!(matches!(after, Position::After(after) if after >= before), "{pair:?}");
        }
    }
    assert_eq!(saves.last().unwrap().holder, "second");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_holder_finds_out_too_that_its_claim_is_lost() {
    let mut first = reading().await;
    let mut other = first.store.checkpoint().unwrap();
    other.holder = "other".to_owned();
    other.epoch += 1;
    first.store.write(&other);
    first.until("it is told", || first.picture().phase == Phase::CheckpointTakenOver).await;
    first.ended().await;
    assert_eq!(first.store.checkpoint().unwrap(), other, "and leaves it as it is");
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_deleted_while_it_is_quiet_is_made_again() {
    let worker = reading().await;
    worker.after(10).await;
    let before = worker.store.checkpoint().unwrap();
    worker.store.delete();
    worker.until("it is there again", || worker.store.checkpoint().is_some()).await;
    let again = worker.store.checkpoint().unwrap();
    assert_eq!(Checkpoint { read_at: before.read_at, ..again }, before);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_deleted_by_hand_is_made_again_from_what_is_known() {
    let worker = reading().await;
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("the first is told", || values(&worker) == [1]).await;
    worker.after(10).await;
    worker.store.delete();
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("the second is told", || values(&worker) == [1, 2]).await;
    worker.after(10).await;
    assert_eq!(position(&worker, "only"), Some(Position::After(number(2))));
}

#[tokio::test(start_paused = true)]
async fn trimmed_records_are_a_gap_that_is_told_and_reading_goes_on() {
    let worker = reading().await;
    // Nothing was read, and what is trimmed is older than the moment reading began.
    worker.streams.fail_next("Records", StreamErrorKind::Trimmed);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || values(&worker) == [1]).await;
    let gaps = |n: u32| {
        format!("stream_notifier_data_gaps_total{{namespace=\"test\",name=\"notifier\"}} {n}")
    };
    assert!(worker.metrics.encode().contains(&gaps(0)));
    worker.streams.fail_next("Records", StreamErrorKind::Trimmed);
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("it is told", || values(&worker) == [1, 1, 2]).await;
    assert_eq!(worker.streams.iterators("only").last(), Some(&IteratorStart::Start));
    assert!(worker.metrics.encode().contains(&gaps(1)));
}

#[tokio::test(start_paused = true)]
async fn a_shard_that_vanished_is_not_waited_for() {
    for is_read in [false, true] {
        let mut worker = self::worker();
        worker.streams.open("parent", None);
        worker.start("a", InitialPosition::Latest);
        worker.started().await;
        if is_read {
            worker.streams.append("parent", change(1, "fuga", "hoge"));
            worker.until("the parent is told", || values(&worker) == [1]).await;
        }
        worker.streams.open("child", Some("parent"));
        worker.streams.append("child", change(2, "fuga", "hoge"));
        worker.streams.trim("parent");
        worker.until("the child is told", || values(&worker).contains(&2)).await;
        let is_gap = worker.picture().gap.is_some();
        assert_eq!(is_gap, is_read, "what was never read is a gap only if it may be a day old");
    }
}
