//! What becomes of messages that do not get through: by the spec's policies, counted, and with a dead
//! letter where there is a queue. On a paused clock.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use stream_notifier::api::{OversizePolicy, StreamNotifierSpec};
use stream_notifier::delivery::{
    DeadLetterErrorKind, DeliveryPolicy, PostRateLimiter, SlowClientAction,
};
use stream_notifier::model::{AttributeValue, Position, Record};
use stream_notifier::rules::CompiledSpec;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{FakeQueue, Worker, change, number, shard_id, spec};
use tokio::time::Instant;

/// A worker that reads one open shard, under a policy, with a queue for dead letters.
async fn started(
    policy: impl FnOnce(DeliveryPolicy) -> DeliveryPolicy,
) -> (Worker, Arc<FakeQueue>) {
    started_with(spec(), policy).await
}

async fn started_with(
    spec: StreamNotifierSpec,
    policy: impl FnOnce(DeliveryPolicy) -> DeliveryPolicy,
) -> (Worker, Arc<FakeQueue>) {
    let (mut worker, queue) = (Worker::new(), Arc::new(FakeQueue::default()));
    worker.streams.open("only", None);
    let dead_letters = queue.clone();
    worker.dead_letters = Some(dead_letters);
    worker.start_with(|mut job| {
        job.delivery.policy = policy(job.delivery.policy);
        WorkerConfig { rules: Arc::new(CompiledSpec::new(&spec).unwrap()), ..job }
    });
    worker.started().await;
    (worker, queue)
}

fn tell(worker: &Worker, change: Record) {
    worker.streams.append("only", change);
}

fn position(worker: &Worker) -> Option<Position> {
    worker.store.checkpoint()?.shards.get(&shard_id("only")).cloned()
}

async fn settled(worker: &Worker, n: u32) {
    let all = Some(Position::After(number(n)));
    worker.until("all are settled", || position(worker) == all).await;
}

fn message(item: &str, value: &str) -> String {
    format!(r#"{{"pk":"{item}","sk":"hoge","value":"{value}"}}"#)
}

fn counted(worker: &Worker, metric: &str, outcome: &str) -> u64 {
    let metrics = worker.metrics.encode();
    let is_it = |line: &&str| {
        line.starts_with(&format!("stream_notifier_{metric}_total{{"))
            && line.contains(&format!(r#"outcome="{outcome}""#))
    };
    // Every counter is there from the start.
    let line = metrics.lines().find(is_it).expect(outcome);
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn under_drop_the_newest_value_of_an_item_replaces_the_one_that_waits() {
    let (worker, queue) =
        started(|policy| DeliveryPolicy { slow_client: SlowClientAction::Drop, ..policy }).await;
    worker.connections.put("slow", "hoge", "2026-01-01");
    worker.connections.put("quick", "hoge", "2026-01-01");
    worker.gateway.script("slow", &[(0, 429), (0, 429), (0, 429), (0, 429), (0, 200)]);
    tell(&worker, change(1, "fuga", "hoge"));
    worker.until("it is slow", || worker.gateway.posts().len() >= 2).await;
    for (n, item) in [(2, "other"), (3, "fuga"), (4, "fuga")] {
        tell(&worker, change(n, item, "hoge"));
    }
    settled(&worker, 4).await;
    assert_eq!(worker.gateway.received("slow"), [message("other", "2"), message("fuga", "4")]);
    assert_eq!(worker.gateway.received("quick").len(), 4);
    assert_eq!(counted(&worker, "messages", "superseded"), 2);
    let reasons: Vec<_> = queue.letters().iter().map(|it| it["reasons"].clone()).collect();
    assert_eq!(reasons, [json!({"Superseded": 1}), json!({"Superseded": 1})]);
}

#[tokio::test(start_paused = true)]
async fn under_wait_a_slow_client_gets_everything() {
    let (worker, _) = started(|policy| policy).await;
    worker.connections.put("slow", "hoge", "2026-01-01");
    worker.gateway.script("slow", &[(0, 429), (0, 429), (0, 429), (0, 429), (0, 200)]);
    for n in 1..=3 {
        tell(&worker, change(n, "fuga", "hoge"));
    }
    settled(&worker, 3).await;
    let all: Vec<_> = (1..=3).map(|n| message("fuga", &n.to_string())).collect();
    assert_eq!(worker.gateway.received("slow"), all);
}

#[tokio::test(start_paused = true)]
async fn under_disconnect_a_client_that_does_not_read_is_closed_and_its_row_goes() {
    let (worker, queue) =
        started(|policy| DeliveryPolicy { slow_client: SlowClientAction::Disconnect, ..policy })
            .await;
    worker.connections.put("slow", "hoge", "2026-01-01");
    worker.connections.put("quick", "hoge", "2026-01-01");
    worker.gateway.script("slow", &[(0, 429)]);
    for n in 1..=3 {
        tell(&worker, change(n, "fuga", "hoge"));
    }
    settled(&worker, 3).await;
    assert_eq!(worker.gateway.disconnected(), ["slow"]);
    assert_eq!(worker.connections.stored(), ["quick"]);
    assert_eq!(worker.gateway.received("quick").len(), 3);
    assert_eq!(counted(&worker, "messages", "disconnected"), 3);
    assert_eq!(queue.letters().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_cannot_be_closed_keeps_its_row_and_its_messages() {
    let (worker, _) =
        started(|policy| DeliveryPolicy { slow_client: SlowClientAction::Disconnect, ..policy })
            .await;
    worker.connections.put("slow", "hoge", "2026-01-01");
    worker.connections.put("quick", "hoge", "2026-01-01");
    worker.gateway.script("slow", &[(0, 429), (0, 429), (0, 429), (0, 429), (0, 200)]);
    worker.gateway.refuse_to_close(&[500, 429]);
    tell(&worker, change(1, "fuga", "hoge"));
    tell(&worker, change(2, "fuga", "hoge"));
    settled(&worker, 2).await;
    assert_eq!(worker.gateway.received("slow").len(), 2);
    assert_eq!(worker.gateway.disconnected(), [""; 0]);
    assert_eq!(worker.connections.stored(), ["slow", "quick"]);
}

/// One that hangs takes 15 s for each answer.
#[tokio::test(start_paused = true)]
async fn what_waits_behind_a_connection_that_hangs_is_given_up_in_time() {
    let longest_try = Duration::from_secs(60);
    let (worker, _) = started(|policy| DeliveryPolicy { max_age: longest_try, ..policy }).await;
    worker.connections.put("hangs", "hoge", "2026-01-01");
    worker.gateway.script("hangs", &[(15_000, 504)]);
    for n in 1..=300 {
        tell(&worker, change(n, "fuga", "hoge"));
        worker.after(1).await;
    }
    let begun = Instant::now();
    settled(&worker, 300).await;
    assert!(begun.elapsed() < longest_try * 2, "{:?}", begun.elapsed());
    assert_eq!(counted(&worker, "messages", "expired"), 300);
}

#[tokio::test(start_paused = true)]
async fn where_nobody_gets_anything_nobody_is_disconnected() {
    let (worker, _) =
        started(|policy| DeliveryPolicy { slow_client: SlowClientAction::Disconnect, ..policy })
            .await;
    worker.connections.put("one", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 429);
    tell(&worker, change(1, "fuga", "hoge"));
    settled(&worker, 1).await;
    assert_eq!(worker.gateway.disconnected(), [""; 0]);
    assert_eq!(counted(&worker, "messages", "expired"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_message_is_tried_no_longer_than_it_may_be() {
    let longest_try = Duration::from_secs(20);
    let (worker, queue) = started(|policy| DeliveryPolicy { max_age: longest_try, ..policy }).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 503);
    let begun = Instant::now();
    tell(&worker, change(1, "fuga", "hoge"));
    settled(&worker, 1).await;
    let took = begun.elapsed();
    assert!((longest_try..longest_try * 2).contains(&took), "{took:?}");
    assert_eq!(queue.letters()[0]["reasons"], json!({"Expired": 1}));
}

#[tokio::test(start_paused = true)]
async fn a_message_is_tried_no_oftener_than_it_may_be() {
    let (worker, queue) =
        started(|policy| DeliveryPolicy { max_attempts: Some(3), ..policy }).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 500);
    tell(&worker, change(1, "fuga", "hoge"));
    settled(&worker, 1).await;
    assert_eq!(worker.gateway.posts().len(), 3);
    assert_eq!(counted(&worker, "messages", "attempts_exhausted"), 1);
    assert_eq!(queue.letters()[0]["reasons"], json!({"Attempts": 1}));
}

/// A change whose message is longer than API Gateway takes.
fn long(n: u32) -> Record {
    let mut long = change(n, "fuga", "hoge");
    let value = AttributeValue::S(format!("{n}{}", "x".repeat(128 * 1024)));
    long.new.insert("TargetAttribute".to_owned(), value);
    long
}

#[tokio::test(start_paused = true)]
async fn what_is_too_large_is_not_even_posted() {
    let (worker, queue) = started(|policy| policy).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    tell(&worker, long(1));
    settled(&worker, 1).await;
    assert_eq!(worker.gateway.posts(), []);
    assert_eq!(counted(&worker, "messages", "too_large"), 1);
    let letter = &queue.letters()[0];
    assert_eq!(letter["reasons"], json!({"TooLarge": 1}));
    let value = letter["record"]["dynamodb"]["NewImage"]["TargetAttribute"]["S"].as_str().unwrap();
    assert_eq!(value.len(), 128 * 1024 + 1);
}

#[tokio::test(start_paused = true)]
async fn keys_only_tells_which_item_changed() {
    let mut spec = spec();
    spec.delivery.oversize = OversizePolicy::KeysOnly;
    let (worker, queue) = started_with(spec, |policy| policy).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    let mut large = long(1);
    // With its dead letter more than may wait for one connection.
    large.old.insert("Filler".to_owned(), AttributeValue::S("x".repeat(600 * 1024)));
    tell(&worker, large);
    // And one that only the gateway finds too long.
    tell(&worker, change(2, "fuga", "hoge"));
    worker.gateway.script("one", &[(0, 200), (0, 413), (0, 200)]);
    settled(&worker, 2).await;
    let short = r#"{"pk":"target_pk#fuga","sk":"target_sk#hoge","truncated":true}"#;
    assert_eq!(worker.gateway.received("one"), [short, short]);
    assert_eq!(queue.letters(), [json!(null); 0]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_takes_nothing_keeps_the_newest_that_fit() {
    let (worker, _) = started(|policy| policy).await;
    worker.connections.put("deaf", "hoge", "2026-01-01");
    worker.gateway.script("deaf", &[(0, 429); 12]);
    tell(&worker, change(1, "first", "hoge"));
    worker.until("it is slow", || worker.gateway.posts().len() >= 2).await;
    for n in 2..=1_000 {
        tell(&worker, change(n, &format!("item-{n}"), "hoge"));
    }
    worker.until("the oldest are dropped", || counted(&worker, "messages", "overflow") > 400).await;
    worker.gateway.script("deaf", &[(0, 200)]);
    settled(&worker, 1_000).await;
    let received = worker.gateway.received("deaf");
    let dropped = counted(&worker, "messages", "overflow") as usize;
    assert_eq!(received.len() + dropped, 1_000);
    let newest: Vec<_> = (dropped + 1..=1_000).collect();
    let newest = newest.iter().map(|n| message(&format!("item-{n}"), &n.to_string()));
    assert_eq!(received, newest.collect::<Vec<_>>());
}

/// What keeps posts from leaving is not their connection's fault.
#[tokio::test(start_paused = true)]
async fn while_rights_are_wrong_nothing_is_dropped_however_much_waits() {
    let (worker, _) =
        started(|policy| DeliveryPolicy { slow_client: SlowClientAction::Drop, ..policy }).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 403);
    for n in 1..=1_000 {
        tell(&worker, change(n, "fuga", "hoge"));
    }
    worker.until("it is told", || worker.reasons().contains(&"GatewayForbidden")).await;
    worker.after(600).await;
    worker.gateway.everyone(0, 200);
    settled(&worker, 1_000).await;
    let all: Vec<_> = (1..=1_000).map(|n| message("fuga", &n.to_string())).collect();
    assert_eq!(worker.gateway.received("one"), all);
}

/// Nor is it while it is known to be slow, or to have taken nothing just before.
#[tokio::test(start_paused = true)]
async fn while_rights_are_wrong_nothing_is_dropped_of_one_that_was_slow() {
    for before in [(900, 200), (3_000, 503)] {
        let (worker, _) = started(|policy| policy).await;
        worker.connections.put("slow", "hoge", "2026-01-01");
        worker.gateway.script("slow", &[before, (0, 403)]);
        tell(&worker, change(1, "fuga", "hoge"));
        tell(&worker, change(2, "fuga", "hoge"));
        worker.until("it is told", || worker.reasons().contains(&"GatewayForbidden")).await;
        for n in 3..=1_000 {
            tell(&worker, change(n, &format!("item-{n}"), "hoge"));
        }
        worker.after(600).await;
        assert_eq!(counted(&worker, "messages", "overflow"), 0, "{before:?}");
        worker.gateway.script("slow", &[(0, 200)]);
        settled(&worker, 1_000).await;
        assert_eq!(counted(&worker, "messages", "overflow"), 0, "{before:?}");
    }
}

/// What a record holds for its dead letter counts for its connection too.
#[tokio::test(start_paused = true)]
async fn one_deaf_client_of_large_items_holds_up_nobody() {
    let (worker, _) = started(|policy| policy).await;
    worker.connections.put("deaf", "hoge", "2026-01-01");
    worker.connections.put("quick", "hoge", "2026-01-01");
    worker.gateway.script("deaf", &[(0, 429)]);
    let begun = Instant::now();
    for n in 1..=600 {
        let mut large = change(n, &format!("item-{n}"), "hoge");
        for image in [&mut large.old, &mut large.new] {
            image.insert("Filler".to_owned(), AttributeValue::S("x".repeat(50 * 1024)));
        }
        tell(&worker, large);
    }
    worker.until("the other is told", || worker.gateway.delivered() == 600).await;
    assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
}

/// A worker with so many connections, whose messages are tried twice at the most, and for an hour;
/// and how fast it may post.
async fn crowd(
    connections: usize,
    slow_client: SlowClientAction,
) -> (Worker, Arc<PostRateLimiter>) {
    let (mut worker, limits) = (Worker::new(), Arc::new(PostRateLimiter::new(1_000)));
    worker.streams.open("only", None);
    let of_all = limits.clone();
    let longest_try = Duration::from_secs(3_600);
    worker.start_with(|mut job| {
        job.delivery.policy =
            DeliveryPolicy { max_age: longest_try, max_attempts: Some(2), slow_client };
        WorkerConfig { post_limiter: of_all, ..job }
    });
    worker.started().await;
    for n in 0..connections {
        worker.connections.put(&format!("connection-{n:03}"), "hoge", "2026-01-01");
    }
    (worker, limits)
}

#[tokio::test(start_paused = true)]
async fn an_account_that_is_throttled_slows_everybody_and_drops_nothing() {
    let (worker, limits) = crowd(200, SlowClientAction::Wait).await;
    worker.gateway.everyone(10, 429);
    tell(&worker, change(1, "fuga", "hoge"));
    worker.until("all were tried", || worker.gateway.posts().len() > 300).await;
    assert_eq!(counted(&worker, "messages", "attempts_exhausted"), 0, "it is nobody's own trouble");
    worker.gateway.everyone(10, 200);
    settled(&worker, 1).await;
    assert_eq!(worker.gateway.delivered(), 200);
    let begun = Instant::now();
    for _ in 0..500 {
        limits.acquire().await;
    }
    // At the full pace it were 0.4 s.
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
}

/// Everybody is throttled for ten minutes.
async fn nothing_is_given_up_while_all_are_throttled(connections: usize) {
    let (worker, _) = crowd(connections, SlowClientAction::Disconnect).await;
    worker.gateway.everyone(10, 429);
    tell(&worker, change(1, "fuga", "hoge"));
    worker.after(600).await;
    assert_eq!(counted(&worker, "messages", "attempts_exhausted"), 0);
    worker.gateway.everyone(10, 200);
    settled(&worker, 1).await;
    assert_eq!(worker.gateway.delivered(), connections);
    assert_eq!(worker.gateway.disconnected(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn an_account_may_be_throttled_for_long() {
    nothing_is_given_up_while_all_are_throttled(200).await;
}

/// So few that five are hardly ever tried within a second.
#[tokio::test(start_paused = true)]
async fn an_account_with_few_connections_may_be_throttled_for_long() {
    nothing_is_given_up_while_all_are_throttled(20).await;
}

#[tokio::test(start_paused = true)]
async fn an_account_may_be_throttled_in_part_for_long() {
    let (worker, _) = crowd(200, SlowClientAction::Disconnect).await;
    for n in 0..200 {
        let answers = (n..n + 600).map(|n| (10, if n % 3 == 0 { 200 } else { 429 }));
        let answers: Vec<_> = answers.chain([(10, 200)]).collect();
        worker.gateway.script(&format!("connection-{n:03}"), &answers);
    }
    for n in 1..=60 {
        tell(&worker, change(n, "fuga", "hoge"));
        worker.after(10).await;
        assert_eq!(counted(&worker, "messages", "attempts_exhausted"), 0, "after {n}");
    }
    settled(&worker, 60).await;
    assert_eq!(worker.gateway.delivered(), 60 * 200);
    assert_eq!(worker.gateway.disconnected(), [""; 0]);
}

/// A client that does not read, among many that do, once all were throttled for so long: how many of
/// its three messages are given up like this, in which time.
async fn deaf_after(throttled: u64, worker: &Worker, kind: &str) -> (u64, Duration) {
    worker.connections.put("deaf", "hoge", "2026-01-01");
    worker.gateway.script("deaf", &[(10, 429)]);
    worker.gateway.everyone(10, 429);
    tell(worker, change(1, "fuga", "hoge"));
    worker.after(throttled).await;
    assert_eq!(counted(worker, "messages", kind), 0, "it is nobody's own trouble");
    worker.gateway.everyone(10, 200);
    let begun = Instant::now();
    tell(worker, change(2, "fuga", "hoge"));
    tell(worker, change(3, "fuga", "hoge"));
    settled(worker, 3).await;
    assert_eq!(worker.gateway.delivered(), 3 * 200);
    (counted(worker, "messages", kind), begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_deaf_client_among_many_is_given_up_by_its_attempts() {
    for throttled in [0, 1, 5, 60] {
        let (worker, _) = crowd(200, SlowClientAction::Wait).await;
        let (given_up, took) = deaf_after(throttled, &worker, "attempts_exhausted").await;
        assert_eq!(given_up, 3);
        assert!(took < Duration::from_secs(40), "{took:?} after {throttled} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deaf_client_among_many_is_disconnected() {
    for throttled in [0, 1, 5, 60] {
        let (worker, _) = crowd(200, SlowClientAction::Disconnect).await;
        let (closed, took) = deaf_after(throttled, &worker, "disconnected").await;
        assert_eq!(worker.gateway.disconnected(), ["deaf"]);
        assert_eq!(closed + counted(&worker, "messages", "attempts_exhausted"), 3);
        assert!(took < Duration::from_secs(40), "{took:?} after {throttled} s");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_that_says_nothing_is_a_dead_letter_too() {
    let (worker, queue) = started(|policy| policy).await;
    let mut invalid = change(1, "fuga", "hoge");
    invalid.keys.insert("SK".to_owned(), AttributeValue::S("target_sk".to_owned()));
    tell(&worker, invalid);
    settled(&worker, 1).await;
    let letter = &queue.letters()[0];
    assert_eq!(letter["reasons"], json!({"Invalid": 1}));
    assert_eq!(letter["connections"], 0);
    assert_eq!(letter["record"]["dynamodb"]["Keys"]["SK"]["S"], "target_sk");
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_sent_before_its_record_is_settled() {
    let (worker, queue) =
        started(|policy| DeliveryPolicy { max_attempts: Some(1), ..policy }).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 500);
    queue.fail(Some(DeadLetterErrorKind::AccessDenied));
    tell(&worker, change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.warnings() == ["DeadLetterQueueAccessDenied"]).await;
    worker.after(30).await;
    assert_ne!(position(&worker), Some(Position::After(number(1))));
    queue.fail(None);
    settled(&worker, 1).await;
    assert_eq!(queue.letters().len(), 1);
    assert_eq!(worker.warnings(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_queue_that_fails_holds_nothing_up_for_ever() {
    let (worker, queue) =
        started(|policy| DeliveryPolicy { max_attempts: Some(1), ..policy }).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    worker.gateway.everyone(0, 500);
    queue.fail(Some(DeadLetterErrorKind::Unavailable));
    let begun = Instant::now();
    for n in 1..=500 {
        tell(&worker, change(n, &format!("item-{n}"), "hoge"));
    }
    settled(&worker, 500).await;
    assert!(begun.elapsed() >= Duration::from_secs(60), "{:?}", begun.elapsed());
    assert!(begun.elapsed() < Duration::from_secs(180), "{:?}", begun.elapsed());
    assert_eq!(counted(&worker, "dead_letters", "failed"), 500);
    assert_eq!(worker.warnings(), ["DeadLetterQueueUnavailable"]);
    assert_eq!(worker.reasons(), [""; 0], "every change goes out that can");
}

#[tokio::test(start_paused = true)]
async fn what_is_too_long_for_the_queue_is_sent_without_its_images() {
    let (worker, queue) = started(|policy| policy).await;
    worker.connections.put("one", "hoge", "2026-01-01");
    queue.take_at_most(10_000);
    tell(&worker, long(1));
    settled(&worker, 1).await;
    let letter = &queue.letters()[0];
    assert_eq!(letter["truncated"], true);
    assert_eq!(letter["record"]["dynamodb"].get("NewImage"), None);
    assert_eq!(counted(&worker, "dead_letters", "truncated"), 1);
    assert_eq!(queue.tries(), 2);
}
