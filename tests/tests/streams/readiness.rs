//! Problems that a worker reports while it cannot read every open shard, and clears afterwards.

use std::sync::Arc;

use stream_notifier::model::Position;
use stream_notifier::streams::{InitialPosition, IteratorStart, StreamErrorKind, StreamRateLimits};
use stream_notifier::telemetry::Phase;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{Worker, new_record, sequence_number};
use stream_notifier_tests::streams_model::{Request, Settings};

use super::fixture::{
    HOUR, clear_faults, fail_requests, fake_worker, float_metric, model_worker, one_open_shard,
    read_table, received_values, shard_name, started_fake_worker, store_checkpoint, write_value,
};
use super::overridden_streams::OverriddenStreams;

/// The service returns iterators, but each read with one fails because its records are trimmed.
#[tokio::test(start_paused = true)]
async fn reports_a_shard_whose_records_are_always_trimmed() {
    let mut worker = model_worker(one_open_shard());
    worker.start_and_wait(read_table).await;
    fail_requests(&worker, Request::Records, StreamErrorKind::Trimmed);
    worker.sleep_seconds(120).await;
    assert_eq!(worker.problem_reasons(), ["StreamUnavailable"]);
    clear_faults(&worker);
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
}

/// One message of the parent is retried for 5 minutes.
#[tokio::test(start_paused = true)]
async fn reports_a_child_that_waits_for_messages_of_its_parent() {
    let mut worker = model_worker(one_open_shard());
    worker.connections.put("slow", "hoge", "2026-01-01");
    worker.gateway.script("slow", &[(0, 429)]);
    worker.start_and_wait(read_table).await;
    write_value(&worker, 1);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.streams.with(|model| model.roll(0));
    write_value(&worker, 2);
    worker.sleep_seconds(50).await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
    worker.sleep_seconds(20).await;
    assert_eq!(received_values(&worker), [1], "the child must wait for its parent");
    assert_eq!(worker.problem_reasons(), ["ShardBlocked"]);
    worker.wait_until("the client receives [1, 2]", || received_values(&worker) == [1, 2]).await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
}

/// The limit is 1 request per second, for 200 shards.
#[tokio::test(start_paused = true)]
async fn reports_a_rate_limit_that_is_too_low_for_the_shards() {
    let mut worker = model_worker(Settings { shards: 200, ..one_open_shard() });
    worker.start_with(|config| WorkerConfig {
        stream_limits: Arc::new(StreamRateLimits::new(1)),
        ..read_table(config)
    });
    worker.wait_started().await;
    worker.sleep_seconds(600).await;
    assert!(worker.problem_reasons().contains(&"ShardBlocked"));
}

/// The listing of an enabled stream has no shard for 10 minutes.
#[tokio::test(start_paused = true)]
async fn reports_a_stream_without_shards() {
    let mut worker = model_worker(one_open_shard());
    worker.streams.set_unlisted(Some(shard_name(&worker, 0)));
    worker.start_with(read_table);
    write_value(&worker, 1);
    worker.sleep_seconds(600).await;
    assert_eq!(worker.problem_reasons(), ["NoShards"]);
    worker.streams.set_unlisted(None);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
}

/// The child of the only shard is never listed.
#[tokio::test(start_paused = true)]
async fn reports_a_stream_whose_child_shard_is_never_listed() {
    let mut worker = model_worker(one_open_shard());
    worker.start_and_wait(read_table).await;
    worker.streams.with(|model| model.roll(0));
    let child = worker.streams.with(|model| model.shards()[1].id.clone());
    worker.streams.set_unlisted(Some(child));
    write_value(&worker, 1);
    worker.sleep_seconds(HOUR).await;
    let health = worker.health();
    assert_eq!(worker.problem_reasons(), ["NoChildShard"], "{health:?}");
    worker.streams.set_unlisted(None);
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.sleep_seconds(60).await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
}

/// The permission to read is missing for an hour.
#[tokio::test(start_paused = true)]
async fn reports_the_iterator_age_of_an_unreadable_shard() {
    let mut worker = model_worker(one_open_shard());
    worker.start_with(read_table);
    worker.sleep_seconds(600).await;
    let age = |worker: &Worker<OverriddenStreams>| float_metric(worker, "iterator_age_seconds");
    assert!(age(&worker) < 10.0, "all records are read");
    fail_requests(&worker, Request::Records, StreamErrorKind::AccessDenied);
    worker.sleep_seconds(HOUR).await;
    assert!((3_580.0..=3_610.0).contains(&age(&worker)), "{}", age(&worker));
    clear_faults(&worker);
    worker.sleep_seconds(600).await;
    assert!(age(&worker) < 10.0, "all records are read again");
    worker.stop().await;
    assert!(!worker.metrics.encode().contains("iterator_age_seconds{"), "the worker has stopped");
}

#[tokio::test(start_paused = true)]
async fn reports_a_shard_that_waits_for_its_messages() {
    let mut worker = fake_worker();
    // A single slow connection does not delay the others, because its oldest messages are dropped.
    for n in 0..40 {
        worker.connections.put(&format!("slow{n}"), &format!("hoge{n}"), "2026-01-01");
        worker.gateway.script(&format!("slow{n}"), &[(0, 429)]);
    }
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    for n in 1..=20_000 {
        worker.streams.append("only", new_record(n, "fuga", &format!("hoge{}", n % 40)));
    }
    worker
        .wait_until("ShardBlocked is reported", || worker.problem_reasons() == ["ShardBlocked"])
        .await;
    worker.wait_until("the problem is cleared", || worker.problem_reasons().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn becomes_ready_after_every_open_shard_was_read() {
    let mut worker = fake_worker();
    worker.gateway.script("connection", &[(200_000, 200), (0, 200)]);
    worker.streams.open("parent", None);
    worker.streams.append("parent", new_record(1, "fuga", "hoge"));
    worker.streams.close("parent");
    worker.streams.open("child", Some("parent"));
    worker.start("a", InitialPosition::TrimHorizon);
    worker.sleep_seconds(100).await;
    assert_eq!(worker.streams.iterators("child"), []);
    assert_eq!(worker.health().phase, Phase::Starting, "the open shard was not read");
    worker.wait_started().await;
    assert_eq!(worker.streams.iterators("child").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn becomes_ready_between_a_finished_shard_and_its_child() {
    let mut worker = fake_worker();
    worker.streams.open("last", None);
    worker.streams.append("last", new_record(1, "fuga", "hoge"));
    worker.start("a", InitialPosition::TrimHorizon);
    worker.wait_started().await;
    worker.streams.close("last");
    worker.sleep_seconds(10).await;
    assert_eq!(worker.settled_position("last"), Some(Position::Finished));
    worker.stop().await;
    worker.start("a", InitialPosition::TrimHorizon);
    worker.sleep_seconds(60).await;
    assert_eq!(worker.health().phase, Phase::Reading, "no listed shard is unread");
    worker.streams.open("child", Some("last"));
    worker.sleep_seconds(60).await;
    assert_eq!(worker.streams.iterators("child"), [IteratorStart::TrimHorizon]);
    assert_eq!(received_values(&worker), [1]);
}

#[tokio::test(start_paused = true)]
async fn becomes_ready_without_an_aged_out_shard_of_the_checkpoint() {
    let mut worker = fake_worker();
    worker.streams.open("alive", None);
    store_checkpoint(
        &worker,
        &[("aged-out", Position::After(sequence_number(1))), ("alive", Position::TrimHorizon)],
    );
    worker.start("a", InitialPosition::TrimHorizon);
    worker.streams.append("alive", new_record(5, "fuga", "hoge"));
    worker.wait_until("the client receives [5]", || received_values(&worker) == [5]).await;
    worker.wait_started().await;
    assert_eq!(worker.problem_reasons(), [""; 0], "{:?}", worker.health());
}

#[tokio::test(start_paused = true)]
async fn reports_a_listed_shard_that_is_never_found() {
    let worker = started_fake_worker().await;
    worker.streams.set_not_found("only");
    worker
        .wait_until("ShardNotFound is reported", || worker.problem_reasons() == ["ShardNotFound"])
        .await;
}

#[tokio::test(start_paused = true)]
async fn keeps_the_problem_of_one_shard_while_another_is_read() {
    let mut worker = fake_worker();
    worker.streams.open("bad", None);
    worker.streams.open("good", None);
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    worker.streams.set_not_found("bad");
    worker
        .wait_until("ShardNotFound is reported", || worker.problem_reasons() == ["ShardNotFound"])
        .await;
    worker.streams.append("good", new_record(1, "fuga", "hoge"));
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.sleep_seconds(300).await;
    assert_eq!(worker.problem_reasons(), ["ShardNotFound"]);
}

#[tokio::test(start_paused = true)]
async fn reports_access_denied_at_once_and_clears_it() {
    let worker = started_fake_worker().await;
    worker.streams.fail_next("Records", StreamErrorKind::AccessDenied);
    worker
        .wait_until("StreamAccessDenied is reported", || {
            worker.problem_reasons() == ["StreamAccessDenied"]
        })
        .await;
    worker.wait_until("the problem is cleared", || worker.problem_reasons().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn reports_no_problem_for_a_retried_read() {
    let worker = started_fake_worker().await;
    for kind in [StreamErrorKind::Throttled, StreamErrorKind::Unavailable] {
        worker.streams.fail_next("Records", kind);
    }
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    assert_eq!(worker.streams.iterators("only").len(), 1, "the iterator is still valid");
    assert_eq!(worker.problem_reasons(), [""; 0], "the problem lasted less than a minute");
    for code in ["throttled", "unavailable"] {
        let labels = [("operation", "get_records"), ("code", code)];
        assert_eq!(worker.metric_value("stream_requests_total", &labels), 1, "{code}");
    }
}

#[tokio::test(start_paused = true)]
async fn reports_a_panicking_reader_until_it_reads_again() {
    let worker = started_fake_worker().await;
    worker.streams.panic_on_records(true);
    worker
        .wait_until("WorkerFailed is reported", || worker.problem_reasons() == ["WorkerFailed"])
        .await;
    for second in 0..600 {
        assert_eq!(worker.problem_reasons(), ["WorkerFailed"], "after {second} s");
        worker.sleep_seconds(1).await;
    }
    worker.streams.panic_on_records(false);
    worker.streams.append("only", new_record(1, "fuga", "hoge"));
    worker.wait_until("the client receives [1]", || received_values(&worker) == [1]).await;
    worker.wait_started().await;
    assert_eq!(worker.problem_reasons(), [""; 0]);
}
