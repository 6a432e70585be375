//! What one connection, one queue or one account is slow at holds up nobody else. On a paused clock.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use stream_notifier::delivery::{
    DeadLetterError, DeadLetterErrorKind, DeadLetterQueue, PostRateLimiter,
};
use stream_notifier::model::{AttributeValue, Position};
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{FakeQueue, QUEUE, Worker, change, number, shard_id};
use tokio::time::{Instant, sleep};

fn counted(worker: &Worker, outcome: &str) -> u64 {
    let metrics = worker.metrics.encode();
    let is_it = |line: &&str| {
        line.starts_with("stream_notifier_messages_total{")
            && line.contains(&format!(r#"outcome="{outcome}""#))
    };
    // Every counter is there from the start.
    let line = metrics.lines().find(is_it).expect(outcome);
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

async fn settled(worker: &Worker, n: u32) {
    let all = Some(Position::After(number(n)));
    let position = || worker.store.checkpoint()?.shards.get(&shard_id("only")).cloned();
    worker.until("all are settled", || position() == all).await;
}

async fn started(with: impl FnOnce(WorkerConfig) -> WorkerConfig) -> Worker {
    started_with_queue(None, with).await
}

async fn started_with_queue(
    queue: Option<Arc<dyn DeadLetterQueue>>,
    with: impl FnOnce(WorkerConfig) -> WorkerConfig,
) -> Worker {
    let mut worker = Worker::new();
    worker.dead_letters = queue;
    worker.streams.open("only", None);
    worker.start_with(with);
    worker.started().await;
    worker
}

#[tokio::test(start_paused = true)]
async fn while_posting_is_forbidden_nothing_is_dropped() {
    let worker = started(|job| job).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 403);
    for n in 1..=1_000 {
        worker.streams.append("only", change(n, &format!("item-{n}"), "hoge"));
    }
    worker.after(120).await;
    worker.gateway.everyone(0, 200);
    settled(&worker, 1_000).await;
    assert_eq!(counted(&worker, "overflow"), 0);
    assert_eq!(worker.gateway.received("one").len(), 1_000);
}

#[tokio::test(start_paused = true)]
async fn waiting_for_the_account_is_nobodys_own_trouble() {
    let limits = Arc::new(PostRateLimiter::new(20));
    let worker = started(|job| WorkerConfig { post_limiter: limits, ..job }).await;
    for n in 0..40 {
        worker.connections.put(&format!("c{n}"), "hoge", "2026-01-01");
    }
    for n in 1..=600 {
        worker.streams.append("only", change(n, &format!("item-{n}"), "hoge"));
    }
    settled(&worker, 600).await;
    assert_eq!(counted(&worker, "overflow"), 0);
}

#[tokio::test(start_paused = true)]
async fn the_letters_of_one_deaf_client_do_not_take_all_memory() {
    let queue = Arc::new(FakeQueue::default());
    let worker = started_with_queue(Some(queue), |job| job).await;
    worker.connections.put("deaf", "hoge", "2026-01-01");
    worker.connections.put("quick", "other", "2026-01-01");
    worker.gateway.script("deaf", &[(0, 429)]);
    for n in 1..=100 {
        let mut big = change(n, "fuga", "hoge");
        big.new.insert("Extra".to_owned(), AttributeValue::S("x".repeat(200 * 1024)));
        worker.streams.append("only", big);
    }
    worker.streams.append("only", change(101, "fuga", "other"));
    let begun = Instant::now();
    worker.until("it is told", || worker.gateway.received("quick").len() == 1).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

/// The longest that `quick` waited for a change, at this pace, beside a slow one.
async fn longest_wait(script: &[(u64, u16)], records: u32, every: Duration) -> Duration {
    let worker = started(|job| job).await;
    worker.connections.put("quick", "hoge", "2026-01-01");
    worker.connections.put("slow", "hoge", "2026-01-01");
    worker.gateway.script("slow", script);
    let mut at = vec![];
    for n in 1..=records {
        at.push(Instant::now());
        worker.streams.append("only", change(n, &format!("item-{n}"), "hoge"));
        sleep(every).await;
    }
    worker.until("all", || worker.gateway.received("quick").len() == records as usize).await;
    let posts = worker.gateway.posts();
    let quick = posts.iter().filter(|post| post.connection == "quick");
    println!("overflow {}", counted(&worker, "overflow"));
    quick.zip(at).map(|(post, at)| post.at - at).max().unwrap()
}

#[tokio::test(start_paused = true)]
async fn one_that_reads_slowly_holds_up_nobody() {
    let script: Vec<_> = (0..5_000).map(|n| (20, if n % 2 == 0 { 200 } else { 429 })).collect();
    let wait = longest_wait(&script, 3_000, Duration::from_millis(10)).await;
    assert!(wait < Duration::from_secs(2), "{wait:?}");
}

#[tokio::test(start_paused = true)]
async fn one_that_answers_slowly_holds_up_nobody() {
    let wait = longest_wait(&[(900, 200)], 1_500, Duration::from_millis(100)).await;
    assert!(wait < Duration::from_secs(2), "{wait:?}");
}

/// Drops a message after its first failed attempt.
fn one_attempt(mut job: WorkerConfig) -> WorkerConfig {
    job.delivery.policy.max_attempts = Some(1);
    job
}

#[derive(Debug)]
struct Hangs;

impl DeadLetterQueue for Hangs {
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

/// One that cannot be reached: no VPC endpoint, as is common.
#[tokio::test(start_paused = true)]
async fn a_queue_that_hangs_holds_nothing_up_for_ever() {
    let worker = started_with_queue(Some(Arc::new(Hangs)), one_attempt).await;
    worker.connections.put("bad", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 500);
    let begun = Instant::now();
    for n in 1..=500 {
        worker.streams.append("only", change(n, &format!("item-{n}"), "hoge"));
    }
    settled(&worker, 500).await;
    assert!(begun.elapsed() < Duration::from_secs(180), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_letter_is_tried_for_a_minute_whatever_was_days_ago() {
    let queue = Arc::new(FakeQueue::default());
    let letters = queue.clone();
    let worker = started_with_queue(Some(letters), one_attempt).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 500);
    queue.fail(Some(DeadLetterErrorKind::Unavailable));
    worker.streams.append("only", change(1, "fuga", "hoge"));
    settled(&worker, 1).await;
    worker.after(24 * 3600).await;
    let before = queue.tries();
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("it was tried", || queue.tries() > before).await;
    queue.fail(None);
    settled(&worker, 2).await;
    assert_eq!(queue.letters().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_failure_is_made_good_soon_beside_those_that_hang() {
    let worker = started(|job| job).await;
    for n in 0..100 {
        worker.connections.put(&format!("hangs{n}"), "hoge", "2026-01-01");
        worker.gateway.script(&format!("hangs{n}"), &[(15_000, 504)]);
    }
    worker.connections.put("well", "other", "2026-01-01");
    worker.gateway.script("well", &[(10, 503), (10, 200)]);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.after(40).await;
    let begun = Instant::now();
    worker.streams.append("only", change(2, "fuga", "other"));
    settled(&worker, 2).await;
    let received = worker.gateway.received("well").len();
    let posts = worker.gateway.posts();
    let at = posts.iter().rfind(|post| post.connection == "well").unwrap().at;
    assert_eq!(received, 1, "expired {}", counted(&worker, "expired"));
    assert!(at - begun < Duration::from_secs(30), "{:?}", at - begun);
}

/// Ten clients that read slowly, in a region where little else is posted.
#[tokio::test(start_paused = true)]
async fn a_few_slow_clients_are_not_the_account() {
    let limits = Arc::new(PostRateLimiter::new(5_000));
    let of_all = limits.clone();
    let worker = started(|job| WorkerConfig { post_limiter: of_all, ..job }).await;
    for n in 0..10 {
        worker.connections.put(&format!("slow{n}"), "hoge", "2026-01-01");
        let script: Vec<_> = (0..5_000).map(|n| (20, if n % 2 == 0 { 200 } else { 429 })).collect();
        worker.gateway.script(&format!("slow{n}"), &script);
    }
    for n in 1..=300 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
        sleep(Duration::from_millis(200)).await;
    }
    let begun = Instant::now();
    // Another notifier of the region tells 10,000 connections, all of which take it.
    for n in 0..10_000 {
        limits.acquire().await;
        limits.record_response(&format!("other{n}"), false);
    }
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
