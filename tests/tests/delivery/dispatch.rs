//! Posts of one worker: concurrent, in order per connection, retried, and held while posting fails.

use std::collections::BTreeSet;
use std::time::Duration;

use stream_notifier::delivery::ConnectionsErrorKind;
use stream_notifier::model::{AttributeValue, Item};
use stream_notifier::streams::InitialPosition;
use stream_notifier_tests::fakes::Worker;
use tokio::time::Instant;

use crate::support::{SHARD, append, connect, message, messages, start, start_default};

#[tokio::test(start_paused = true)]
async fn posts_to_the_rows_of_every_page() {
    let worker = start(Worker::with_pages(1000, 100), |config| config).await;
    connect(&worker, 150);
    worker.connections.put_new("elsewhere", "other");
    append(&worker, 1, "fuga");
    worker
        .wait_until("all connections have their messages", || worker.gateway.delivered() == 150)
        .await;
    assert_eq!(worker.connections.queries(), 2);
    assert_eq!(worker.gateway.received("connection-149"), [message("fuga", 1)]);
    assert_eq!(worker.gateway.received("elsewhere"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn posts_concurrently_but_one_at_a_time_per_connection() {
    let worker = start_default().await;
    connect(&worker, 100);
    worker.gateway.set_default_response(200, 200);
    for n in 1..=5 {
        append(&worker, n, "fuga");
    }
    let started = Instant::now();
    worker
        .wait_until("all connections have their messages", || worker.gateway.delivered() == 500)
        .await;
    let elapsed = started.elapsed();
    assert!(worker.gateway.max_in_flight() >= 64, "{}", worker.gateway.max_in_flight());
    assert!(!worker.gateway.had_concurrent_posts());
    assert!(elapsed < Duration::from_secs(2), "5 rounds of 200 ms took {elapsed:?}");
    let expected: Vec<_> = (1..=5).map(|n| message("fuga", n)).collect();
    assert_eq!(worker.gateway.received("connection-042"), expected);
}

#[tokio::test(start_paused = true)]
async fn keeps_order_if_the_first_post_is_slower() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(5_000, 200), (0, 200)]);
    append(&worker, 1, "fuga");
    append(&worker, 2, "fuga");
    worker.wait_until("both messages are delivered", || worker.gateway.delivered() == 2).await;
    let received = worker.gateway.received("connection-000");
    assert_eq!(received, [message("fuga", 1), message("fuga", 2)]);
}

#[tokio::test(start_paused = true)]
async fn retries_a_failed_message_before_the_next_one() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(0, 500), (0, 429), (0, 503), (0, 200)]);
    append(&worker, 1, "fuga");
    append(&worker, 2, "fuga");
    worker.wait_until("both messages are delivered", || worker.gateway.delivered() == 2).await;
    let posts: Vec<_> = worker.gateway.posts().into_iter().map(|post| post.message).collect();
    assert_eq!(posts.len(), 5);
    assert!(posts[..4].iter().all(|message| message.contains("\"1\"")), "{posts:?}");
}

#[tokio::test(start_paused = true)]
async fn posts_to_a_row_stored_before_its_connection_is_established() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(0, 410), (0, 410), (0, 200)]);
    append(&worker, 1, "fuga");
    worker.wait_until("the message is delivered", || worker.gateway.delivered() == 1).await;
    worker.sleep_seconds(60).await;
    assert_eq!(worker.connections.stored(), ["connection-000"]);
}

#[tokio::test(start_paused = true)]
async fn deletes_the_row_of_a_closed_connection_without_delaying_others() {
    let worker = start_default().await;
    connect(&worker, 3);
    worker.gateway.script("connection-001", &[(0, 410)]);
    let started = Instant::now();
    append(&worker, 1, "fuga");
    append(&worker, 2, "fuga");
    worker.wait_until("the others have their messages", || worker.gateway.delivered() == 4).await;
    assert!(started.elapsed() < Duration::from_secs(1), "{:?}", started.elapsed());
    worker.wait_until("its row is deleted", || worker.connections.stored().len() == 2).await;
    assert!(started.elapsed() >= Duration::from_secs(7), "only after attempts for 7 s");
    worker.wait_settled(SHARD, 2).await;
    let attempts =
        worker.gateway.posts().iter().filter(|post| post.connection == "connection-001").count();
    assert_eq!(attempts, 4, "the second message is not posted to it");
}

#[tokio::test(start_paused = true)]
async fn keeps_a_row_that_was_stored_again_after_the_last_read() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(0, 410), (0, 410), (0, 410), (9_000, 410)]);
    append(&worker, 1, "fuga");
    worker.wait_until("the last attempt is in flight", || worker.connections.reads() == 1).await;
    worker.connections.put("connection-000", "hoge", "2026-12-31");
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.connections.stored(), ["connection-000"]);
}

/// The stored row existed before the last 410, so that response applies to it.
#[tokio::test(start_paused = true)]
async fn deletes_a_row_that_was_stored_again_before_the_last_attempt() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(0, 410)]);
    append(&worker, 1, "fuga");
    worker.wait_until("a post was made", || !worker.gateway.posts().is_empty()).await;
    worker.connections.put("connection-000", "hoge", "2026-12-31");
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.connections.stored(), [""; 0]);
    assert_eq!(worker.gateway.posts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn deletes_no_rows_while_every_connection_is_closed() {
    let worker = start_default().await;
    connect(&worker, 200);
    worker.gateway.set_default_response(20, 410);
    append(&worker, 1, "fuga");
    worker
        .wait_until("the problem is reported", || {
            worker.problem_reasons() == ["AllConnectionsGone"]
        })
        .await;
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.connections.stored().len(), 200);
    // With the right API, only rows of closed connections are deleted.
    worker.gateway.set_default_response(20, 200);
    worker.gateway.script("connection-007", &[(20, 410)]);
    append(&worker, 2, "fuga");
    worker.wait_until("the others have their messages", || worker.gateway.delivered() == 199).await;
    worker.wait_until("its row is deleted", || worker.connections.stored().len() == 199).await;
    assert!(worker.problem_reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn holds_every_message_while_posting_is_forbidden() {
    let worker = start_default().await;
    connect(&worker, 30);
    worker.gateway.set_default_response(5, 403);
    for n in 1..=10 {
        append(&worker, n, "fuga");
    }
    worker
        .wait_until("the problem is reported", || worker.problem_reasons() == ["GatewayForbidden"])
        .await;
    let before = worker.gateway.posts().len();
    worker.sleep_seconds(1200).await;
    let probes = worker.gateway.posts().len() - before;
    assert!((20..=120).contains(&probes), "{probes} probes in 20 minutes");
    assert!(!worker.is_settled(SHARD, 1));
    worker.gateway.set_default_response(5, 200);
    worker.wait_until("the circuit breaker is closed", || worker.gateway.delivered() > 0).await;
    let reset = Instant::now();
    worker
        .wait_until("all connections have their messages", || worker.gateway.delivered() == 300)
        .await;
    assert!(reset.elapsed() < Duration::from_secs(1), "{:?}", reset.elapsed());
    assert!(worker.problem_reasons().is_empty());
    assert_eq!(worker.connections.stored().len(), 30);
    let expected: Vec<_> = (1..=10).map(|n| message("fuga", n)).collect();
    assert_eq!(worker.gateway.received("connection-013"), expected);
    worker.wait_settled(SHARD, 10).await;
}

#[tokio::test(start_paused = true)]
async fn reports_empty_queues_after_a_stop() {
    let mut worker = start_default().await;
    connect(&worker, 30);
    worker.gateway.set_default_response(5, 403);
    append(&worker, 1, "fuga");
    worker
        .wait_until("the problem is reported", || worker.problem_reasons() == ["GatewayForbidden"])
        .await;
    let queued = |worker: &Worker| {
        ["queued_messages", "queued_bytes"].map(|name| worker.metric_value(name, &[]))
    };
    assert_eq!(queued(&worker), [30, 30 * 1024]);
    worker.stop().await;
    worker.sleep_seconds(1).await;
    assert_eq!(queued(&worker), [0, 0], "the queues ended with the worker");
    worker.gateway.set_default_response(5, 200);
    worker.start("b", InitialPosition::Latest);
    worker
        .wait_until("all connections have their messages", || worker.gateway.delivered() == 30)
        .await;
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(queued(&worker), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn excludes_time_behind_an_open_circuit_breaker_from_the_age() {
    let worker = start_default().await;
    connect(&worker, 60);
    worker.gateway.set_default_response(5, 403);
    for n in 1..=3 {
        append(&worker, n, "fuga");
    }
    worker.sleep_seconds(1_200).await;
    // The permission is back, and the burst fails at first.
    for n in 0..60 {
        worker.gateway.script(&format!("connection-{n:03}"), &[(5, 429), (5, 500), (5, 200)]);
    }
    worker
        .wait_until("all connections have their messages", || worker.gateway.delivered() == 180)
        .await;
    assert_eq!(messages(&worker, "expired"), 0);
}

#[tokio::test(start_paused = true)]
async fn holds_posts_that_wait_for_a_place_once_the_circuit_breaker_opens() {
    let worker = start_default().await;
    connect(&worker, 3_000);
    worker.gateway.set_default_response(20, 403);
    append(&worker, 1, "fuga");
    worker.sleep_seconds(5).await;
    let posts = worker.gateway.posts().len();
    assert!(posts <= 270, "{posts} posts were rejected");
}

#[tokio::test(start_paused = true)]
async fn deletes_no_rows_during_a_long_mass_closure() {
    let worker = start_default().await;
    connect(&worker, 200);
    worker.gateway.set_default_response(20, 410);
    for n in 1..=40 {
        append(&worker, n, "fuga");
        worker.sleep_seconds(8).await;
    }
    assert_eq!(worker.connections.stored().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn holds_records_while_the_index_is_missing() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.connections.set_index_exists(false);
    for n in 1..=10 {
        append(&worker, n, "fuga");
    }
    worker
        .wait_until("the problem is reported", || {
            worker.problem_reasons() == ["ConnectionsIndexNotFound"]
        })
        .await;
    worker.sleep_seconds(600).await;
    assert!(!worker.is_settled(SHARD, 1));
    worker.connections.set_index_exists(true);
    worker
        .wait_until("all connections have their messages", || worker.gateway.delivered() == 10)
        .await;
    assert!(worker.problem_reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn reports_an_unavailable_gateway_after_a_minute() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.gateway.set_default_response(0, 500);
    append(&worker, 1, "fuga");
    worker.sleep_seconds(50).await;
    assert!(worker.problem_reasons().is_empty());
    worker
        .wait_until("the problem is reported", || {
            worker.problem_reasons() == ["GatewayUnavailable"]
        })
        .await;
    worker.gateway.set_default_response(0, 200);
    worker.wait_until("the message is delivered", || worker.gateway.delivered() == 1).await;
    assert!(worker.problem_reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn settles_records_despite_an_unresponsive_client() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.connections.put_new("unresponsive", "hoge");
    worker.gateway.script("unresponsive", &[(0, 429)]);
    for n in 1..=20_000 {
        append(&worker, n, "fuga");
    }
    worker
        .wait_until("the other connection has every message", || {
            worker.gateway.delivered() == 20_000
        })
        .await;
    worker.wait_settled(SHARD, 20_000).await;
}

#[tokio::test(start_paused = true)]
async fn never_posts_to_an_invalid_connection_id() {
    let worker = start_default().await;
    connect(&worker, 1);
    for id in ["..", "a/../../b", "a?b", "a b", &"a".repeat(129)] {
        worker.connections.put_new(id, "hoge");
    }
    append(&worker, 1, "fuga");
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.gateway.posts().len(), 1);
    assert_eq!(messages(&worker, "invalid_row"), 5);
}

#[tokio::test(start_paused = true)]
async fn drops_and_counts_a_message_that_always_fails() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.gateway.set_default_response(0, 500);
    let started = Instant::now();
    append(&worker, 1, "fuga");
    worker.wait_settled(SHARD, 1).await;
    assert!(started.elapsed() >= Duration::from_secs(300), "{:?}", started.elapsed());
    assert_eq!(messages(&worker, "expired"), 1);
    assert_eq!(worker.connections.stored(), ["connection-000"]);
}

#[tokio::test(start_paused = true)]
async fn drops_a_message_that_the_gateway_finds_too_large_without_a_retry() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.gateway.set_default_response(0, 413);
    append(&worker, 1, "fuga");
    worker.wait_settled(SHARD, 1).await;
    assert_eq!(worker.gateway.posts().len(), 1);
    assert_eq!(messages(&worker, "too_large"), 1);
}

#[tokio::test(start_paused = true)]
async fn uses_a_lookup_that_began_after_the_record_was_read() {
    let worker = start_default().await;
    connect(&worker, 1);
    append(&worker, 1, "fuga");
    worker.wait_until("the message is delivered", || worker.gateway.delivered() == 1).await;
    worker.connections.put_new("late", "hoge");
    append(&worker, 2, "fuga");
    worker.wait_until("both messages are delivered", || worker.gateway.delivered() == 3).await;
    assert_eq!(worker.gateway.received("late").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn holds_a_record_while_its_lookup_fails() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.connections.set_error(Some(ConnectionsErrorKind::AccessDenied));
    append(&worker, 1, "fuga");
    worker
        .wait_until("the problem is reported", || {
            worker.problem_reasons() == ["ConnectionsAccessDenied"]
        })
        .await;
    worker.sleep_seconds(3_000).await;
    assert!(!worker.is_settled(SHARD, 1));
    worker.connections.set_error(None);
    worker.wait_until("the message is delivered", || worker.gateway.delivered() == 1).await;
    assert!(worker.problem_reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn settles_records_as_invalid_if_the_key_has_another_type() {
    let worker = Worker::new();
    worker.connections.set_key_type("N");
    let worker = start(worker, |config| config).await;
    connect(&worker, 1);
    append(&worker, 1, "fuga");
    append(&worker, 2, "fuga");
    worker.wait_settled(SHARD, 2).await;
    let records = |result| worker.metric_value("records_total", &[("result", result)]);
    assert_eq!((records("invalid"), records("matched")), (2, 0));
    assert_eq!(worker.connections.queries(), 0);
}

#[tokio::test(start_paused = true)]
async fn reports_a_rejected_query_and_holds_its_record() {
    let worker = start_default().await;
    connect(&worker, 1);
    worker.connections.set_error(Some(ConnectionsErrorKind::Invalid));
    append(&worker, 1, "fuga");
    worker
        .wait_until("the problem is reported", || {
            worker.problem_reasons().contains(&"ConnectionsUnavailable")
        })
        .await;
    assert!(!worker.is_settled(SHARD, 1));
    worker.connections.set_error(None);
    worker.wait_until("the message is delivered", || worker.gateway.delivered() == 1).await;
    assert!(worker.problem_reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn counts_rows_without_a_connection_id_and_posts_to_the_others() {
    let worker = start_default().await;
    connect(&worker, 2);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    worker.connections.put_row(Item::from([("sk".to_owned(), text("hoge"))]));
    append(&worker, 1, "fuga");
    worker.wait_until("the others have their messages", || worker.gateway.delivered() == 2).await;
    assert_eq!(messages(&worker, "invalid_row"), 1);
    worker.wait_settled(SHARD, 1).await;
}

#[tokio::test(start_paused = true)]
async fn works_through_a_backlog_within_the_post_limit() {
    let worker = start_default().await;
    connect(&worker, 50);
    worker.gateway.set_default_response(10, 200);
    for n in 1..=2_000 {
        append(&worker, n, &format!("item-{n}"));
    }
    worker
        .wait_until("all connections have their messages", || worker.gateway.delivered() == 100_000)
        .await;
    assert!(worker.gateway.max_in_flight() <= 1024, "{}", worker.gateway.max_in_flight());
    let received: BTreeSet<_> = worker.gateway.received("connection-000").into_iter().collect();
    assert_eq!(received.len(), 2_000);
    worker.wait_settled(SHARD, 2_000).await;
}
