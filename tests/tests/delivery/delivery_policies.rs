//! Delivery policies: slow clients, age, attempts, message size, and the queue limit of a connection.

use std::time::Duration;

use serde_json::json;
use stream_notifier::api::OversizePolicy;
use stream_notifier::delivery::{DeliveryPolicy, SlowClientAction};
use stream_notifier::model::AttributeValue;
use stream_notifier_tests::fakes::{new_record, spec};
use tokio::time::Instant;

use crate::support::{SHARD, append, long_record, message, messages, start_policy, start_spec};

#[tokio::test(start_paused = true)]
async fn replaces_a_queued_message_of_the_same_item_under_drop() {
    let (worker, queue) =
        start_policy(|policy| DeliveryPolicy { slow_client: SlowClientAction::Drop, ..policy })
            .await;
    worker.connections.put_new("slow", "hoge");
    worker.connections.put_new("quick", "hoge");
    worker.gateway.script("slow", &[(0, 429), (0, 429), (0, 429), (0, 429), (0, 200)]);
    append(&worker, 1, "fuga");
    worker
        .wait_until("the slow connection was posted to", || worker.gateway.posts().len() >= 2)
        .await;
    for (n, item) in [(2, "other"), (3, "fuga"), (4, "fuga")] {
        append(&worker, n, item);
    }
    worker.wait_settled(SHARD, 4).await;
    assert_eq!(worker.gateway.received("slow"), [message("other", 2), message("fuga", 4)]);
    assert_eq!(worker.gateway.received("quick").len(), 4);
    assert_eq!(messages(&worker, "superseded"), 2);
    let reasons: Vec<_> = queue.dead_letters().iter().map(|it| it["reasons"].clone()).collect();
    assert_eq!(reasons, [json!({"Superseded": 1}), json!({"Superseded": 1})]);
}

#[tokio::test(start_paused = true)]
async fn delivers_every_message_to_a_slow_client_under_wait() {
    let (worker, _) = start_policy(|policy| policy).await;
    worker.connections.put_new("slow", "hoge");
    worker.gateway.script("slow", &[(0, 429), (0, 429), (0, 429), (0, 429), (0, 200)]);
    for n in 1..=3 {
        append(&worker, n, "fuga");
    }
    worker.wait_settled(SHARD, 3).await;
    let all: Vec<_> = (1..=3).map(|n| message("fuga", n)).collect();
    assert_eq!(worker.gateway.received("slow"), all);
}

#[tokio::test(start_paused = true)]
async fn closes_an_unresponsive_connection_and_deletes_its_row_under_disconnect() {
    let (worker, queue) = start_policy(|policy| DeliveryPolicy {
        slow_client: SlowClientAction::Disconnect,
        ..policy
    })
    .await;
    worker.connections.put_new("slow", "hoge");
    worker.connections.put_new("quick", "hoge");
    worker.gateway.script("slow", &[(0, 429)]);
    for n in 1..=3 {
        append(&worker, n, "fuga");
    }
    worker.wait_settled(SHARD, 3).await;
    assert_eq!(worker.gateway.disconnected(), ["slow"]);
    assert_eq!(worker.connections.stored(), ["quick"]);
    assert_eq!(worker.gateway.received("quick").len(), 3);
    assert_eq!(messages(&worker, "disconnected"), 3);
    assert_eq!(queue.dead_letters().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn keeps_row_and_messages_of_a_connection_that_cannot_be_closed() {
    let (worker, _) = start_policy(|policy| DeliveryPolicy {
        slow_client: SlowClientAction::Disconnect,
        ..policy
    })
    .await;
    worker.connections.put_new("slow", "hoge");
    worker.connections.put_new("quick", "hoge");
    worker.gateway.script("slow", &[(0, 429), (0, 429), (0, 429), (0, 429), (0, 200)]);
    worker.gateway.script_disconnect_errors(&[500, 429]);
    append(&worker, 1, "fuga");
    append(&worker, 2, "fuga");
    worker.wait_settled(SHARD, 2).await;
    assert_eq!(worker.gateway.received("slow").len(), 2);
    assert_eq!(worker.gateway.disconnected(), [""; 0]);
    assert_eq!(worker.connections.stored(), ["slow", "quick"]);
}

/// A hanging post takes 15 s.
#[tokio::test(start_paused = true)]
async fn expires_messages_queued_behind_a_hanging_post() {
    let max_age = Duration::from_secs(60);
    let (worker, _) = start_policy(|policy| DeliveryPolicy { max_age, ..policy }).await;
    worker.connections.put_new("hangs", "hoge");
    worker.gateway.script("hangs", &[(15_000, 504)]);
    for n in 1..=300 {
        append(&worker, n, "fuga");
        worker.sleep_seconds(1).await;
    }
    let started = Instant::now();
    worker.wait_settled(SHARD, 300).await;
    assert!(started.elapsed() < max_age * 2, "{:?}", started.elapsed());
    assert_eq!(messages(&worker, "expired"), 300);
}

#[tokio::test(start_paused = true)]
async fn closes_no_connection_while_none_receives_messages() {
    let (worker, _) = start_policy(|policy| DeliveryPolicy {
        slow_client: SlowClientAction::Disconnect,
        ..policy
    })
    .await;
    worker.connections.put_new("one", "hoge");
    worker.gateway.set_default_response(0, 429);
    append(&worker, 1, "fuga");
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.gateway.disconnected(), [""; 0]);
    assert_eq!(messages(&worker, "expired"), 1);
}

#[tokio::test(start_paused = true)]
async fn drops_a_message_at_its_maximum_age() {
    let max_age = Duration::from_secs(20);
    let (worker, queue) = start_policy(|policy| DeliveryPolicy { max_age, ..policy }).await;
    worker.connections.put_new("one", "hoge");
    worker.gateway.set_default_response(0, 503);
    let started = Instant::now();
    append(&worker, 1, "fuga");
    worker.wait_settled(SHARD, 1).await;
    let elapsed = started.elapsed();
    assert!((max_age..max_age * 2).contains(&elapsed), "{elapsed:?}");
    assert_eq!(queue.dead_letters()[0]["reasons"], json!({"Expired": 1}));
}

#[tokio::test(start_paused = true)]
async fn drops_a_message_after_its_last_attempt() {
    let (worker, queue) =
        start_policy(|policy| DeliveryPolicy { max_attempts: Some(3), ..policy }).await;
    worker.connections.put_new("one", "hoge");
    worker.gateway.set_default_response(0, 500);
    append(&worker, 1, "fuga");
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.gateway.posts().len(), 3);
    assert_eq!(messages(&worker, "attempts_exhausted"), 1);
    assert_eq!(queue.dead_letters()[0]["reasons"], json!({"AttemptsExhausted": 1}));
}

#[tokio::test(start_paused = true)]
async fn does_not_post_a_message_over_the_size_limit() {
    let (worker, queue) = start_policy(|policy| policy).await;
    worker.connections.put_new("one", "hoge");
    worker.streams.append(SHARD, long_record(1));
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.gateway.posts(), []);
    assert_eq!(messages(&worker, "too_large"), 1);
    let dead_letter = &queue.dead_letters()[0];
    assert_eq!(dead_letter["reasons"], json!({"TooLarge": 1}));
    let value =
        dead_letter["record"]["dynamodb"]["NewImage"]["TargetAttribute"]["S"].as_str().unwrap();
    assert_eq!(value.len(), 128 * 1024 + 1);
}

#[tokio::test(start_paused = true)]
async fn posts_the_keys_instead_of_a_message_over_the_size_limit() {
    let mut spec = spec();
    spec.delivery.oversize = OversizePolicy::KeysOnly;
    let (worker, queue) = start_spec(spec, |policy| policy).await;
    worker.connections.put_new("one", "hoge");
    let mut large = long_record(1);
    // With the copy for its dead letter, the record exceeds the queue limit of a connection.
    large.old.insert("Filler".to_owned(), AttributeValue::S("x".repeat(600 * 1024)));
    worker.streams.append(SHARD, large);
    // Only the gateway finds this one too large.
    append(&worker, 2, "fuga");
    worker.gateway.script("one", &[(0, 200), (0, 413), (0, 200)]);
    worker.wait_settled(SHARD, 2).await;
    let keys_only = r#"{"pk":"target_pk#fuga","sk":"target_sk#hoge","truncated":true}"#;
    assert_eq!(worker.gateway.received("one"), [keys_only, keys_only]);
    assert_eq!(queue.dead_letters(), [json!(null); 0]);
}

#[tokio::test(start_paused = true)]
async fn keeps_the_newest_messages_of_an_unresponsive_connection() {
    let (worker, _) = start_policy(|policy| policy).await;
    worker.connections.put_new("unresponsive", "hoge");
    worker.gateway.script("unresponsive", &[(0, 429); 12]);
    append(&worker, 1, "first");
    worker
        .wait_until("the slow connection was posted to", || worker.gateway.posts().len() >= 2)
        .await;
    for n in 2..=1_000 {
        append(&worker, n, &format!("item-{n}"));
    }
    worker
        .wait_until("the oldest messages are dropped", || messages(&worker, "overflow") > 400)
        .await;
    worker.gateway.script("unresponsive", &[(0, 200)]);
    worker.wait_settled(SHARD, 1_000).await;
    let received = worker.gateway.received("unresponsive");
    let dropped = messages(&worker, "overflow");
    assert_eq!(received.len() as u64 + dropped, 1_000);
    let newest: Vec<_> =
        (dropped as u32 + 1..=1_000).map(|n| message(&format!("item-{n}"), n)).collect();
    assert_eq!(received, newest);
}

/// A rejected post says nothing about its connection.
#[tokio::test(start_paused = true)]
async fn drops_no_message_while_posting_is_forbidden_however_many_are_queued() {
    let (worker, _) =
        start_policy(|policy| DeliveryPolicy { slow_client: SlowClientAction::Drop, ..policy })
            .await;
    worker.connections.put_new("one", "hoge");
    worker.gateway.set_default_response(0, 403);
    for n in 1..=1_000 {
        append(&worker, n, "fuga");
    }
    worker
        .wait_until("the problem is reported", || {
            worker.problem_reasons().contains(&"GatewayForbidden")
        })
        .await;
    worker.sleep_seconds(600).await;
    worker.gateway.set_default_response(0, 200);
    worker.wait_settled(SHARD, 1_000).await;
    let all: Vec<_> = (1..=1_000).map(|n| message("fuga", n)).collect();
    assert_eq!(worker.gateway.received("one"), all);
}

/// Neither high latency nor a failure before the rejection counts against the connection.
#[tokio::test(start_paused = true)]
async fn drops_no_message_of_a_slow_connection_while_posting_is_forbidden() {
    for before in [(900, 200), (3_000, 503)] {
        let (worker, _) = start_policy(|policy| policy).await;
        worker.connections.put_new("slow", "hoge");
        worker.gateway.script("slow", &[before, (0, 403)]);
        append(&worker, 1, "fuga");
        append(&worker, 2, "fuga");
        worker
            .wait_until("the problem is reported", || {
                worker.problem_reasons().contains(&"GatewayForbidden")
            })
            .await;
        for n in 3..=1_000 {
            append(&worker, n, &format!("item-{n}"));
        }
        worker.sleep_seconds(600).await;
        assert_eq!(messages(&worker, "overflow"), 0, "{before:?}");
        worker.gateway.script("slow", &[(0, 200)]);
        worker.wait_settled(SHARD, 1_000).await;
        assert_eq!(messages(&worker, "overflow"), 0, "{before:?}");
    }
}

/// The copy of a record for its dead letter counts towards the queue limit of its connection.
#[tokio::test(start_paused = true)]
async fn delivers_to_others_despite_an_unresponsive_client_of_large_items() {
    let (worker, _) = start_policy(|policy| policy).await;
    worker.connections.put_new("unresponsive", "hoge");
    worker.connections.put_new("quick", "hoge");
    worker.gateway.script("unresponsive", &[(0, 429)]);
    let started = Instant::now();
    for n in 1..=600 {
        let mut large = new_record(n, &format!("item-{n}"), "hoge");
        for image in [&mut large.old, &mut large.new] {
            image.insert("Filler".to_owned(), AttributeValue::S("x".repeat(50 * 1024)));
        }
        worker.streams.append(SHARD, large);
    }
    worker
        .wait_until("the other connection has every message", || worker.gateway.delivered() == 600)
        .await;
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}
