//! Throttling of the account: it slows every post, drops no message, and closes no connection.

use std::sync::Arc;
use std::time::Duration;

use stream_notifier::delivery::{DeliveryPolicy, PostRateLimiter, SlowClientAction};
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::Worker;
use tokio::time::Instant;

use crate::support::{SHARD, append, connect, messages, start};

/// Starts a worker with `connections` connections, at most two attempts per message and a maximum age
/// of an hour. Returns it with its post rate limiter.
async fn start_throttling_test(
    connections: usize,
    slow_client: SlowClientAction,
) -> (Worker, Arc<PostRateLimiter>) {
    let limiter = Arc::new(PostRateLimiter::new(1_000));
    let post_limiter = limiter.clone();
    let max_age = Duration::from_secs(3_600);
    let worker = start(Worker::new(), |mut config| {
        config.delivery.policy = DeliveryPolicy { max_age, max_attempts: Some(2), slow_client };
        WorkerConfig { post_limiter, ..config }
    })
    .await;
    connect(&worker, connections);
    (worker, limiter)
}

#[tokio::test(start_paused = true)]
async fn reduces_the_rate_and_drops_no_message_while_the_account_is_throttled() {
    let (worker, limiter) = start_throttling_test(200, SlowClientAction::Wait).await;
    worker.gateway.set_default_response(10, 429);
    append(&worker, 1, "fuga");
    worker
        .wait_until("every connection was posted to", || worker.gateway.posts().len() > 300)
        .await;
    assert_eq!(
        messages(&worker, "attempts_exhausted"),
        0,
        "throttling of the account is no failed attempt"
    );
    worker.gateway.set_default_response(10, 200);
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.gateway.delivered(), 200);
    let started = Instant::now();
    for _ in 0..500 {
        limiter.acquire().await;
    }
    // The full rate would take 0.4 s.
    assert!(started.elapsed() > Duration::from_millis(500), "{:?}", started.elapsed());
}

/// Throttles every connection for ten minutes.
async fn assert_no_drop_during_long_throttling(connections: usize) {
    let (worker, _) = start_throttling_test(connections, SlowClientAction::Disconnect).await;
    worker.gateway.set_default_response(10, 429);
    append(&worker, 1, "fuga");
    worker.sleep_seconds(600).await;
    assert_eq!(messages(&worker, "attempts_exhausted"), 0);
    worker.gateway.set_default_response(10, 200);
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.gateway.delivered(), connections);
    assert_eq!(worker.gateway.disconnected(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn drops_no_message_while_the_account_is_throttled_for_long() {
    assert_no_drop_during_long_throttling(200).await;
}

/// So few connections that five posts within a second are rare.
#[tokio::test(start_paused = true)]
async fn drops_no_message_while_an_account_with_few_connections_is_throttled() {
    assert_no_drop_during_long_throttling(20).await;
}

#[tokio::test(start_paused = true)]
async fn drops_no_message_while_two_thirds_of_the_posts_are_throttled() {
    let (worker, _) = start_throttling_test(200, SlowClientAction::Disconnect).await;
    for n in 0..200 {
        let responses = (n..n + 600).map(|n| (10, if n % 3 == 0 { 200 } else { 429 }));
        let responses: Vec<_> = responses.chain([(10, 200)]).collect();
        worker.gateway.script(&format!("connection-{n:03}"), &responses);
    }
    for n in 1..=60 {
        append(&worker, n, "fuga");
        worker.sleep_seconds(10).await;
        assert_eq!(messages(&worker, "attempts_exhausted"), 0, "after {n}");
    }
    worker.wait_settled(SHARD, 60).await;
    assert_eq!(worker.gateway.delivered(), 60 * 200);
    assert_eq!(worker.gateway.disconnected(), [""; 0]);
}

/// Throttles every connection for `throttled` seconds, then only one of 201. Returns how many of that
/// one's three messages were dropped with this outcome, and how long this took.
async fn drop_unresponsive_client_after(
    throttled: u64,
    worker: &Worker,
    outcome: &str,
) -> (u64, Duration) {
    worker.connections.put_new("unresponsive", "hoge");
    worker.gateway.script("unresponsive", &[(10, 429)]);
    worker.gateway.set_default_response(10, 429);
    append(worker, 1, "fuga");
    worker.sleep_seconds(throttled).await;
    assert_eq!(messages(worker, outcome), 0, "throttling of the account is no failed attempt");
    worker.gateway.set_default_response(10, 200);
    let started = Instant::now();
    append(worker, 2, "fuga");
    append(worker, 3, "fuga");
    worker.wait_settled(SHARD, 3).await;
    assert_eq!(worker.gateway.delivered(), 3 * 200);
    (messages(worker, outcome), started.elapsed())
}

#[tokio::test(start_paused = true)]
async fn drops_messages_of_an_unresponsive_client_after_its_attempts() {
    for throttled in [0, 1, 5, 60] {
        let (worker, _) = start_throttling_test(200, SlowClientAction::Wait).await;
        let (dropped, elapsed) =
            drop_unresponsive_client_after(throttled, &worker, "attempts_exhausted").await;
        assert_eq!(dropped, 3);
        assert!(elapsed < Duration::from_secs(40), "{elapsed:?} after {throttled} s");
    }
}

#[tokio::test(start_paused = true)]
async fn closes_an_unresponsive_connection_among_many() {
    for throttled in [0, 1, 5, 60] {
        let (worker, _) = start_throttling_test(200, SlowClientAction::Disconnect).await;
        let (dropped, elapsed) =
            drop_unresponsive_client_after(throttled, &worker, "disconnected").await;
        assert_eq!(worker.gateway.disconnected(), ["unresponsive"]);
        assert_eq!(dropped + messages(&worker, "attempts_exhausted"), 3);
        assert!(elapsed < Duration::from_secs(40), "{elapsed:?} after {throttled} s");
    }
}
