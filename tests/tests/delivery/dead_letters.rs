//! Dead letters: sent before their record settles, retried for a minute, shortened if too long.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::json;
use stream_notifier::delivery::{
    DeadLetterError, DeadLetterErrorKind, DeadLetterQueue, DeliveryPolicy,
};
use stream_notifier::model::AttributeValue;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{FakeQueue, QUEUE, Worker, new_record};
use tokio::time::{Instant, sleep};

use crate::support::{SHARD, append, long_record, start_policy, start_with_queue};

/// The number of dead letters with this outcome.
fn dead_letters(worker: &Worker, outcome: &str) -> u64 {
    worker.metric_value("dead_letters_total", &[("outcome", outcome)])
}

#[tokio::test(start_paused = true)]
async fn sends_a_dead_letter_for_an_invalid_record() {
    let (worker, queue) = start_policy(|policy| policy).await;
    let mut invalid = new_record(1, "fuga", "hoge");
    invalid.keys.insert("SK".to_owned(), AttributeValue::S("target_sk".to_owned()));
    worker.streams.append(SHARD, invalid);
    worker.wait_settled(SHARD, 1).await;
    let dead_letter = &queue.dead_letters()[0];
    assert_eq!(dead_letter["reasons"], json!({"Invalid": 1}));
    assert_eq!(dead_letter["connections"], 0);
    assert_eq!(dead_letter["record"]["dynamodb"]["Keys"]["SK"]["S"], "target_sk");
}

#[tokio::test(start_paused = true)]
async fn sends_a_dead_letter_before_its_record_settles() {
    let (worker, queue) =
        start_policy(|policy| DeliveryPolicy { max_attempts: Some(1), ..policy }).await;
    worker.connections.put_new("one", "hoge");
    worker.gateway.set_default_response(0, 500);
    queue.set_error(Some(DeadLetterErrorKind::AccessDenied));
    append(&worker, 1, "fuga");
    worker
        .wait_until("the problem is reported", || {
            worker.warning_reasons() == ["DeadLetterQueueAccessDenied"]
        })
        .await;
    worker.sleep_seconds(30).await;
    assert!(!worker.is_settled(SHARD, 1));
    queue.set_error(None);
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(queue.dead_letters().len(), 1);
    assert_eq!(worker.warning_reasons(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn settles_records_despite_a_failing_queue() {
    let (worker, queue) =
        start_policy(|policy| DeliveryPolicy { max_attempts: Some(1), ..policy }).await;
    worker.connections.put_new("one", "hoge");
    worker.gateway.set_default_response(0, 500);
    queue.set_error(Some(DeadLetterErrorKind::Unavailable));
    let started = Instant::now();
    for n in 1..=500 {
        append(&worker, n, &format!("item-{n}"));
    }
    worker.wait_settled(SHARD, 500).await;
    assert!(started.elapsed() >= Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(180), "{:?}", started.elapsed());
    assert_eq!(dead_letters(&worker, "failed"), 500);
    assert_eq!(worker.warning_reasons(), ["DeadLetterQueueUnavailable"]);
    assert_eq!(worker.problem_reasons(), [""; 0], "delivery continues");
}

#[tokio::test(start_paused = true)]
async fn sends_a_dead_letter_without_images_if_it_is_too_long_for_the_queue() {
    let (worker, queue) = start_policy(|policy| policy).await;
    worker.connections.put_new("one", "hoge");
    queue.set_max_bytes(10_000);
    worker.streams.append(SHARD, long_record(1));
    worker.wait_settled(SHARD, 1).await;
    let dead_letter = &queue.dead_letters()[0];
    assert_eq!(dead_letter["truncated"], true);
    assert_eq!(dead_letter["record"]["dynamodb"].get("NewImage"), None);
    assert_eq!(dead_letters(&worker, "truncated"), 1);
    assert_eq!(queue.attempts(), 2);
}

/// Drops a message after its first failed attempt.
fn one_attempt(mut config: WorkerConfig) -> WorkerConfig {
    config.delivery.policy.max_attempts = Some(1);
    config
}

/// A queue without a route to it, for example because a VPC endpoint is missing.
#[derive(Debug)]
struct HangingQueue;

impl DeadLetterQueue for HangingQueue {
    fn arn(&self) -> &str {
        QUEUE
    }

    fn send<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>> {
        async {
            sleep(Duration::from_secs(15)).await;
            Err(DeadLetterError { kind: DeadLetterErrorKind::Unavailable, source: None })
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn settles_records_despite_a_hanging_queue() {
    let worker = start_with_queue(Arc::new(HangingQueue), one_attempt).await;
    worker.connections.put_new("failing", "hoge");
    worker.gateway.set_default_response(0, 500);
    let started = Instant::now();
    for n in 1..=500 {
        append(&worker, n, &format!("item-{n}"));
    }
    worker.wait_settled(SHARD, 500).await;
    assert!(started.elapsed() < Duration::from_secs(180), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn retries_a_dead_letter_for_a_minute_after_an_earlier_failure() {
    let queue = Arc::new(FakeQueue::default());
    let worker = start_with_queue(queue.clone(), one_attempt).await;
    worker.connections.put_new("one", "hoge");
    worker.gateway.set_default_response(0, 500);
    queue.set_error(Some(DeadLetterErrorKind::Unavailable));
    append(&worker, 1, "fuga");
    worker.wait_settled(SHARD, 1).await;
    worker.sleep_seconds(24 * 3600).await;
    let before = queue.attempts();
    append(&worker, 2, "fuga");
    worker.wait_until("a dead letter was sent", || queue.attempts() > before).await;
    queue.set_error(None);
    worker.wait_settled(SHARD, 2).await;
    assert_eq!(queue.dead_letters().len(), 1);
}
