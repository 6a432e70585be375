//! The checkpoint of a worker that reads: its claim, its writes, and its recovery after failures.

use stream_notifier::checkpoint::Checkpoint;
use stream_notifier::model::Position;
use stream_notifier::streams::InitialPosition;
use stream_notifier::telemetry::Phase;
use stream_notifier_tests::fakes::{Worker, new_record, sequence_number, shard_id};

use super::fixture::{
    HOUR, fake_worker, model_worker, one_open_shard, poll_every, read_table_from, received_values,
    started_fake_worker,
};

#[tokio::test(start_paused = true)]
async fn writes_no_checkpoint_for_a_quiet_stream() {
    let worker = started_fake_worker().await;
    worker.sleep_seconds(10).await;
    let written = worker.store.saves().len();
    worker.sleep_seconds(3_000).await;
    assert_eq!(worker.store.saves().len(), written);
    // A busy stream writes at most every 5 s.
    for n in 1..=100 {
        worker.streams.append("only", new_record(n, "fuga", "hoge"));
        worker.sleep_seconds(1).await;
    }
    let busy = worker.store.saves().len() - written;
    assert!((10..=21).contains(&busy), "{busy} checkpoints in 100 seconds");
}

/// `readAt` is the only sign of a gap in a shard without sequence numbers.
#[tokio::test(start_paused = true)]
async fn refreshes_read_at_of_a_quiet_stream_every_six_hours() {
    let mut worker = model_worker(one_open_shard());
    worker.sleep_seconds(60).await;
    worker.start_and_wait(poll_every(10, read_table_from(InitialPosition::Latest))).await;
    worker.sleep_seconds(HOUR).await;
    let before = worker.store.saves().len();
    worker.sleep_seconds(24 * HOUR).await;
    let saves = worker.store.saves();
    assert_eq!(saves.len() - before, 4);
    let latest = |position: &Position| *position == Position::Latest;
    assert!(saves.iter().all(|save| save.shards.values().all(latest)));
}

#[tokio::test(start_paused = true)]
async fn reports_only_repeated_failures_of_the_store() {
    let worker = started_fake_worker().await;
    worker.sleep_seconds(3600).await;
    worker.store.fail_next(2);
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    for _ in 0..40 {
        worker.sleep_seconds(1).await;
        assert_eq!(worker.problem_reasons(), [""; 0]);
    }
    assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(1))));
    worker.store.fail_next(1_000);
    let writes = |result| worker.metric_value("checkpoint_writes_total", &[("result", result)]);
    let (succeeded, failed) = (writes("success"), writes("error"));
    worker.streams.append("only", new_record(2, "fuga", "hoge"));
    worker
        .wait_until("CheckpointUnavailable is reported", || {
            worker.problem_reasons() == ["CheckpointUnavailable"]
        })
        .await;
    assert!(writes("error") > failed);
    assert_eq!(writes("success"), succeeded);
    worker.store.fail_next(0);
    worker.wait_until("the problem is cleared", || worker.problem_reasons().is_empty()).await;
    assert_eq!(writes("success"), succeeded + 1);
}

#[tokio::test(start_paused = true)]
async fn confirms_a_write_whose_response_was_lost() {
    let mut worker = fake_worker();
    worker.streams.open("only", None);
    worker.store.lose_responses(1);
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    for n in 1..=20 {
        worker.store.lose_responses(1);
        worker.streams.append("only", new_record(n, "fuga", "hoge"));
        worker.sleep_seconds(10).await;
        assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(n))));
    }
    assert_eq!((worker.health().phase, worker.problem_reasons()), (Phase::Reading, vec![]));
    assert_eq!(worker.store.checkpoint().unwrap().holder, "a");
}

#[tokio::test(start_paused = true)]
async fn retries_the_final_checkpoint_write() {
    let mut worker = started_fake_worker().await;
    worker.sleep_seconds(10).await;
    for n in 1..=2 {
        worker.streams.append("only", new_record(n, "fuga", "hoge"));
        worker.sleep_seconds(1).await;
    }
    worker.store.fail_next(3);
    worker.stop().await;
    worker.start("a", InitialPosition::Latest);
    worker.sleep_seconds(60).await;
    assert_eq!(received_values(&worker), [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn recovers_from_an_unreadable_checkpoint_without_loss() {
    let worker = started_fake_worker().await;
    worker.sleep_seconds(60).await;
    let reports_rate = || worker.metrics.encode().contains("get_records_requests_per_month{");
    assert!(reports_rate());
    worker.gateway.set_default_response(0, 403);
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.sleep_seconds(10).await;
    worker.store.corrupt();
    // A record settles, so the worker writes the checkpoint and finds that it is unreadable.
    worker.streams.append("only", new_record(2, "fuga", "unmatched"));
    worker.gateway.script("connection", &[(0, 200)]);
    worker
        .wait_until("CheckpointInvalid is reported", || {
            worker.problem_reasons() == ["CheckpointInvalid"]
        })
        .await;
    worker.streams.append("only", new_record(3, "fuga", "hoge"));
    worker.sleep_seconds(60).await;
    assert!(!reports_rate(), "no shard is read");
    worker.store.delete();
    worker
        .wait_until("the client receives 3", || received_values(&worker).last() == Some(&3))
        .await;
    assert_eq!(received_values(&worker)[0], 1);
    worker.wait_started().await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn stops_the_first_of_two_holders_and_never_moves_the_checkpoint_back() {
    let mut first = fake_worker();
    first.streams.open("only", None);
    first.start("first", InitialPosition::Latest);
    first.wait_started().await;
    let mut second = Worker::new();
    second.streams = first.streams.clone();
    second.connections = first.connections.clone();
    second.gateway = first.gateway.clone();
    second.store = first.store.clone();
    second.start("second", InitialPosition::Latest);
    second.wait_started().await;
    for n in 1..=50 {
        first.streams.append("only", new_record(n, &format!("item-{n}"), "hoge"));
        first.sleep_seconds(1).await;
    }
    assert_eq!(
        (first.health().phase, first.problem_reasons()),
        (Phase::CheckpointTakenOver, vec!["CheckpointTakenOver"])
    );
    first.wait_exit().await;
    second.sleep_seconds(10).await;
    let mut received = received_values(&second);
    received.sort_unstable();
    received.dedup();
    assert_eq!(received, (1..=50).collect::<Vec<_>>());
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
async fn detects_a_lost_claim_while_idle() {
    let mut first = started_fake_worker().await;
    let mut other = first.store.checkpoint().unwrap();
    other.holder = "other".to_owned();
    other.epoch += 1;
    first.store.write(&other);
    first
        .wait_until("the takeover is reported", || {
            first.health().phase == Phase::CheckpointTakenOver
        })
        .await;
    first.wait_exit().await;
    assert_eq!(
        first.store.checkpoint().unwrap(),
        other,
        "the checkpoint of the other holder must be unchanged"
    );
}

#[tokio::test(start_paused = true)]
async fn restores_a_deleted_checkpoint_while_idle() {
    let worker = started_fake_worker().await;
    worker.sleep_seconds(10).await;
    let before = worker.store.checkpoint().unwrap();
    worker.store.delete();
    worker.wait_until("the checkpoint exists", || worker.store.checkpoint().is_some()).await;
    let restored = worker.store.checkpoint().unwrap();
    assert_eq!(Checkpoint { read_at: before.read_at, ..restored }, before);
}

#[tokio::test(start_paused = true)]
async fn restores_a_deleted_checkpoint_from_memory() {
    let worker = started_fake_worker().await;
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.sleep_seconds(10).await;
    worker.store.delete();
    worker.streams.append("only", new_record(2, "fuga", "hoge"));
    worker.wait_until("the client receives [1, 2]", || received_values(&worker) == [1, 2]).await;
    worker.sleep_seconds(10).await;
    assert_eq!(worker.settled_position("only"), Some(Position::After(sequence_number(2))));
}
