//! Reading of shards: every record of every shard is read, in order, and settled once delivered.

use stream_notifier::model::{EventName, Position, Record, UnixSeconds};
use stream_notifier::streams::{InitialPosition, IteratorStart};
use stream_notifier_tests::fakes::{Call, NOW, new_record, sequence_number, shard_id};

use super::fixture::{fake_worker, received_values, started_fake_worker};

#[tokio::test(start_paused = true)]
async fn reads_250_shards_on_three_pages_of_the_listing() {
    let mut worker = fake_worker();
    for n in 0..250 {
        let shard = format!("shard-{n:03}");
        worker.streams.open(&shard, None);
        worker.streams.append(&shard, new_record(n, &format!("item-{n}"), "hoge"));
    }
    worker.start("a", InitialPosition::Latest);
    worker.wait_until("250 messages are delivered", || worker.gateway.delivered() == 250).await;
    worker.wait_started().await;
    let pages: Vec<_> = worker
        .streams
        .calls()
        .into_iter()
        .filter(|call| matches!(call, Call::Describe(_)))
        .collect();
    let after = |shard: &str| Call::Describe(Some(shard_id(shard)));
    assert_eq!(pages[..3], [Call::Describe(None), after("shard-099"), after("shard-199")]);
    let mut received = received_values(&worker);
    received.sort_unstable();
    assert_eq!(received, (0..250).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn reads_a_child_from_the_start_time_once_its_parent_is_settled() {
    let mut worker = fake_worker();
    worker.streams.open("parent", None);
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    // The last message of the parent takes 30 s, and the child exists already.
    worker.gateway.script("connection", &[(30_000, 200), (0, 200)]);
    worker.streams.append("parent", new_record(1, "fuga", "hoge"));
    worker.streams.open("child", Some("parent"));
    worker.streams.append("child", new_record(2, "fuga", "hoge"));
    worker.streams.close("parent");
    worker.sleep_seconds(29).await;
    assert_eq!(worker.streams.iterators("child"), [], "the message of the parent is in flight");
    worker.wait_until("the client receives [1, 2]", || received_values(&worker) == [1, 2]).await;
    let start = IteratorStart::At(UnixSeconds(NOW.0 - 1));
    assert_eq!(worker.streams.iterators("child"), [start], "never LATEST");
    worker.sleep_seconds(10).await;
    assert_eq!(worker.settled_position("parent"), Some(Position::Finished), "while it is listed");
    assert_eq!(worker.settled_position("child"), Some(Position::After(sequence_number(2))));
}

#[tokio::test(start_paused = true)]
async fn reads_a_lineage_in_order_from_the_trim_horizon() {
    let mut worker = fake_worker();
    for (n, (shard, parent)) in
        [("a", None), ("b", Some("a")), ("c", Some("b")), ("d", Some("c"))].into_iter().enumerate()
    {
        let n = u32::try_from(n).unwrap();
        worker.streams.open(shard, parent);
        worker.streams.append(shard, new_record(2 * n, "fuga", "hoge"));
        worker.streams.append(shard, new_record(2 * n + 1, "fuga", "hoge"));
        if shard != "d" {
            worker.streams.close(shard);
        }
    }
    worker.start("a", InitialPosition::TrimHorizon);
    worker.wait_until("8 messages are delivered", || worker.gateway.delivered() == 8).await;
    assert_eq!(received_values(&worker), (0..8).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn reads_the_records_of_a_page_without_next_iterator() {
    let mut worker = fake_worker();
    worker.streams.open("only", None);
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.streams.append("only", new_record(2, "fuga", "hoge"));
    worker.streams.close("only");
    worker.start("a", InitialPosition::TrimHorizon);
    worker.wait_until("the client receives [1, 2]", || received_values(&worker) == [1, 2]).await;
    worker
        .wait_until("the shard is finished", || {
            worker.settled_position("only") == Some(Position::Finished)
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn replaces_an_expired_iterator_after_the_last_record_read() {
    let worker = started_fake_worker().await;
    // Before the first record, the new iterator begins at the start time, so it includes this record.
    worker.streams.expire_iterators();
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.streams.expire_iterators();
    worker.streams.append("only", new_record(2, "fuga", "hoge"));
    worker.wait_until("the client receives [1, 2]", || received_values(&worker) == [1, 2]).await;
    let iterators = worker.streams.iterators("only");
    let first = iterators[0].clone();
    assert!(matches!(first, IteratorStart::At(_)));
    assert_eq!(iterators, [first.clone(), first, IteratorStart::After(sequence_number(1))]);
}

#[tokio::test(start_paused = true)]
async fn never_saves_a_position_ahead_of_delivery() {
    let mut worker = fake_worker();
    worker.connections.put("slow", "slow", "2026-01-01");
    worker.gateway.script("slow", &[(100_000, 200)]);
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.streams.append("only", new_record(2, "fuga", "slow"));
    worker.streams.append("only", new_record(3, "fuga", "hoge"));
    worker.wait_until("the client receives [1, 3]", || received_values(&worker) == [1, 3]).await;
    worker.sleep_seconds(60).await;
    assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(1))));
    worker.sleep_seconds(60).await;
    assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(3))));
}

#[tokio::test(start_paused = true)]
async fn settles_skipped_records_with_the_record_before_them() {
    let mut worker = fake_worker();
    worker.connections.put("slow", "slow", "2026-01-01");
    worker.gateway.script("slow", &[(100_000, 200)]);
    worker.streams.open("only", None);
    let skipped = |n| Record { event: EventName::Insert, ..new_record(n, "fuga", "hoge") };
    for record in [
        skipped(1),
        skipped(2),
        new_record(3, "fuga", "slow"),
        skipped(4),
        skipped(5),
        new_record(6, "fuga", "hoge"),
        skipped(7),
        skipped(8),
    ] {
        worker.streams.append("only", record);
    }
    worker.start("a", InitialPosition::TrimHorizon);
    worker.wait_until("the client receives [6]", || received_values(&worker) == [6]).await;
    worker.sleep_seconds(60).await;
    assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(2))));
    worker.sleep_seconds(60).await;
    assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(8))));
}

#[tokio::test(start_paused = true)]
async fn repeats_only_unsaved_records_after_a_crash() {
    let mut worker = started_fake_worker().await;
    // The worker is killed before it stores more than its start.
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.kill().await;
    assert_eq!(worker.settled_position("only"), Some(Position::Latest));
    worker.streams.append("only", new_record(2, "fuga", "hoge"));
    worker.start("b", InitialPosition::Latest);
    worker
        .wait_until("the client receives [1, 1, 2]", || received_values(&worker) == [1, 1, 2])
        .await;
    worker.sleep_seconds(10).await;
    assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(2))));
    // The checkpoint is stored now, so no record before it is repeated.
    worker.kill().await;
    worker.streams.append("only", new_record(3, "fuga", "hoge"));
    worker.start("c", InitialPosition::Latest);
    worker
        .wait_until("the client receives [1, 1, 2, 3]", || received_values(&worker) == [1, 1, 2, 3])
        .await;
    assert_eq!(
        worker.streams.iterators("only").last(),
        Some(&IteratorStart::After(sequence_number(2)))
    );
}

#[tokio::test(start_paused = true)]
async fn finishes_and_saves_posts_in_flight_on_stop() {
    let mut worker = fake_worker();
    worker.gateway.set_default_response(2_000, 200);
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    for n in 1..=5 {
        worker.streams.append("only", new_record(n, &format!("item-{n}"), "hoge"));
    }
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.stop().await;
    assert_eq!(received_values(&worker), [1, 2, 3, 4, 5]);
    assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(5))));
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    worker.sleep_seconds(60).await;
    assert_eq!(received_values(&worker), [1, 2, 3, 4, 5], "no message is repeated");
}
