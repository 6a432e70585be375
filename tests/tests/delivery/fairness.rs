//! Isolation: a slow connection, a full queue or a throttled account delays no other connection.

use std::sync::Arc;
use std::time::Duration;

use stream_notifier::delivery::PostRateLimiter;
use stream_notifier::model::AttributeValue;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{FakeQueue, Worker, new_record};
use tokio::time::{Instant, sleep};

use crate::support::{SHARD, append, messages, start, start_default, start_with_queue};

#[tokio::test(start_paused = true)]
async fn drops_no_message_while_posting_is_forbidden() {
    let worker = start_default().await;
    worker.connections.put_new("one", "hoge");
    worker.gateway.set_default_response(0, 403);
    for n in 1..=1_000 {
        append(&worker, n, &format!("item-{n}"));
    }
    worker.sleep_seconds(120).await;
    worker.gateway.set_default_response(0, 200);
    worker.wait_settled(SHARD, 1_000).await;
    assert_eq!(messages(&worker, "overflow"), 0);
    assert_eq!(worker.gateway.received("one").len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn drops_no_message_that_waits_for_the_rate_limit() {
    let post_limiter = Arc::new(PostRateLimiter::new(20));
    let worker = start(Worker::new(), |config| WorkerConfig { post_limiter, ..config }).await;
    for n in 0..40 {
        worker.connections.put_new(&format!("c{n}"), "hoge");
    }
    for n in 1..=600 {
        append(&worker, n, &format!("item-{n}"));
    }
    worker.wait_settled(SHARD, 600).await;
    assert_eq!(messages(&worker, "overflow"), 0);
}

#[tokio::test(start_paused = true)]
async fn delivers_to_others_despite_the_dead_letters_of_an_unresponsive_client() {
    let worker = start_with_queue(Arc::new(FakeQueue::default()), |config| config).await;
    worker.connections.put_new("unresponsive", "hoge");
    worker.connections.put_new("quick", "other");
    worker.gateway.script("unresponsive", &[(0, 429)]);
    for n in 1..=100 {
        let mut large = new_record(n, "fuga", "hoge");
        large.new.insert("Extra".to_owned(), AttributeValue::S("x".repeat(200 * 1024)));
        worker.streams.append(SHARD, large);
    }
    worker.streams.append(SHARD, new_record(101, "fuga", "other"));
    let started = Instant::now();
    let is_delivered = || worker.gateway.received("quick").len() == 1;
    worker.wait_until("the other connection has its message", is_delivered).await;
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

/// Appends a record every `interval` for a quick and a slow connection. Returns the longest time that
/// the quick one waited for a message. It must receive every message, although the queue of the slow
/// one overflows.
async fn longest_wait(slow: &[(u64, u16)], records: u32, interval: Duration) -> Duration {
    let worker = start_default().await;
    worker.connections.put_new("quick", "hoge");
    worker.connections.put_new("slow", "hoge");
    worker.gateway.script("slow", slow);
    let mut appended_at = vec![];
    for n in 1..=records {
        appended_at.push(Instant::now());
        append(&worker, n, &format!("item-{n}"));
        sleep(interval).await;
    }
    worker.wait_settled(SHARD, records).await;
    let received = |connection| worker.gateway.received(connection).len() as u64;
    let (records, overflow) = (u64::from(records), messages(&worker, "overflow"));
    assert_eq!(received("quick"), records);
    assert!(overflow > 0, "the queue of the slow connection must overflow");
    assert_eq!(received("slow") + overflow, records, "each message is delivered or counted");
    let posts = worker.gateway.posts();
    let quick = posts.iter().filter(|post| post.connection == "quick");
    quick.zip(appended_at).map(|(post, at)| post.at - at).max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn delays_no_other_connection_if_one_is_throttled() {
    let slow: Vec<_> = (0..5_000).map(|n| (20, if n % 2 == 0 { 200 } else { 429 })).collect();
    let wait = longest_wait(&slow, 3_000, Duration::from_millis(10)).await;
    assert!(wait < Duration::from_secs(2), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn delays_no_other_connection_if_one_responds_slowly() {
    let wait = longest_wait(&[(900, 200)], 1_500, Duration::from_millis(100)).await;
    assert!(wait < Duration::from_secs(2), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn retries_a_failed_post_soon_beside_hanging_connections() {
    let worker = start_default().await;
    for n in 0..100 {
        worker.connections.put_new(&format!("hanging{n}"), "hoge");
        worker.gateway.script(&format!("hanging{n}"), &[(15_000, 504)]);
    }
    worker.connections.put_new("well", "other");
    worker.gateway.script("well", &[(10, 503), (10, 200)]);
    append(&worker, 1, "fuga");
    worker.sleep_seconds(40).await;
    let started = Instant::now();
    worker.streams.append(SHARD, new_record(2, "fuga", "other"));
    worker.wait_settled(SHARD, 2).await;
    assert_eq!(worker.gateway.received("well").len(), 1);
    let posts = worker.gateway.posts();
    let delivered_at = posts.iter().rfind(|post| post.connection == "well").unwrap().at;
    let elapsed = delivered_at - started;
    assert!(elapsed < Duration::from_secs(30), "{elapsed:?}");
}

/// Ten slow clients in a region with few other posts.
#[tokio::test(start_paused = true)]
async fn keeps_the_full_rate_if_only_a_few_clients_are_slow() {
    let limiter = Arc::new(PostRateLimiter::new(5_000));
    let post_limiter = limiter.clone();
    let worker = start(Worker::new(), |config| WorkerConfig { post_limiter, ..config }).await;
    let slow: Vec<_> = (0..5_000).map(|n| (20, if n % 2 == 0 { 200 } else { 429 })).collect();
    for n in 0..10 {
        worker.connections.put_new(&format!("slow{n}"), "hoge");
        worker.gateway.script(&format!("slow{n}"), &slow);
    }
    for n in 1..=300 {
        append(&worker, n, "fuga");
        sleep(Duration::from_millis(200)).await;
    }
    let started = Instant::now();
    // Another notifier of the region posts to 10,000 connections without an error.
    for n in 0..10_000 {
        limiter.acquire().await;
        limiter.record_response(&format!("other{n}"), false);
    }
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}
