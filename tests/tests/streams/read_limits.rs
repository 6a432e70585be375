//! Bounds of requests and of records that are read ahead. They do not depend on the number of shards.

use std::sync::Arc;
use std::time::Duration;

use stream_notifier::delivery::DeliveryLimits;
use stream_notifier::streams::{CallRateLimiter, InitialPosition, StreamErrorKind};
use stream_notifier::worker::MAX_PAGES;
use stream_notifier_tests::fakes::{Call, Worker};
use stream_notifier_tests::streams_model::{Key, Request, Settings};
use tokio::time::{Instant, sleep};

use super::fixture::{
    clear_faults, fail_requests, float_metric, model_worker, one_open_shard, one_shard, read_table,
};
use super::overridden_streams::OverriddenStreams;

/// Changes 20,000 items 3 times.
fn write_60_000_records(worker: &Worker<OverriddenStreams>) {
    for value in 1..4 {
        for item in 0..20_000 {
            let key = Key::target(&format!("i{item}"), "hoge");
            worker.streams.with(|model| model.write(&key, Some(value)));
        }
    }
}

/// Asserts that the worker has read only the records that it can hold, because none is settled.
fn assert_read_ahead_is_bounded(worker: &Worker<OverriddenStreams>) {
    let read = worker.streams.records_returned();
    let max = MAX_PAGES * 1000 + DeliveryLimits::default().memory_kib as usize;
    assert!(read <= max, "{read} of 60,000 records are read, and none is settled");
}

/// The gateway rejects every post, so each shard holds the records that it has read.
#[tokio::test(start_paused = true)]
async fn bounds_read_ahead_of_many_shards() {
    let mut worker = model_worker(Settings { roll_ms: None, shards: 64, ..one_shard() });
    write_60_000_records(&worker);
    worker.gateway.set_default_response(1, 403);
    worker.start_with(read_table);
    worker.sleep_seconds(600).await;
    assert_read_ahead_is_bounded(&worker);
}

/// Reads fail while all shards are quiet. Then every shard has records, and the gateway rejects every post.
#[tokio::test(start_paused = true)]
async fn bounds_read_ahead_after_an_outage() {
    let mut worker = model_worker(Settings { shards: 64, ..one_open_shard() });
    worker.start_and_wait(read_table).await;
    worker.sleep_seconds(60).await;
    fail_requests(&worker, Request::Records, StreamErrorKind::AccessDenied);
    worker.gateway.set_default_response(1, 403);
    worker.sleep_seconds(60).await;
    write_60_000_records(&worker);
    clear_faults(&worker);
    worker.sleep_seconds(600).await;
    assert_read_ahead_is_bounded(&worker);
}

/// One of 3,000 shards is listed but never found.
#[tokio::test(start_paused = true)]
async fn probes_a_missing_shard_less_than_twice_per_second() {
    let mut worker = Worker::new();
    for n in 0..3000 {
        worker.streams.open(&format!("shard-{n:04}"), None);
    }
    worker.streams.set_not_found("shard-0007");
    worker.start("holder", InitialPosition::TrimHorizon);
    worker.sleep_seconds(60).await;
    let describe_requests = || {
        let calls = worker.streams.calls();
        calls.iter().filter(|call| matches!(call, Call::Describe(_))).count()
    };
    let before = describe_requests();
    worker.sleep_seconds(120).await;
    let per_second = (describe_requests() - before) as f64 / 120.0;
    assert!(
        per_second < 2.0,
        "{per_second} DescribeStream requests per second, of 8 for the account"
    );
}

#[tokio::test(start_paused = true)]
async fn removes_the_request_rate_metric_when_the_worker_stops() {
    let mut worker = model_worker(one_shard());
    worker.start_with(read_table);
    worker.sleep_seconds(120).await;
    assert!(float_metric(&worker, "get_records_requests_per_month") > 1e6);
    worker.stop().await;
    assert!(!worker.metrics.encode().contains("get_records_requests_per_month{"));
}

/// 350 requests reserve permits for the next 3 minutes, then all are cancelled.
#[tokio::test(start_paused = true)]
async fn returns_the_permits_of_cancelled_requests() {
    let limiter = Arc::new(CallRateLimiter::new(8, 2));
    let waiting: Vec<_> = (0..350)
        .map(|_| {
            let limiter = limiter.clone();
            tokio::spawn(async move { limiter.acquire().await })
        })
        .collect();
    sleep(Duration::from_millis(10)).await;
    for task in waiting {
        task.abort();
    }
    let start = Instant::now();
    limiter.acquire().await;
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
}
