//! Lookups: which lookup serves a record, and the meaning of a row.

use std::sync::Arc;
use std::time::Duration;

use stream_notifier::delivery::{ConnectionsConfig, ConnectionsErrorKind};
use stream_notifier::model::{AttributeValue, Item};
use stream_notifier::rules::CompiledSpec;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{NOW, Worker, new_record, spec};
use tokio::time::sleep;

use crate::support::{message, messages};

/// Starts a worker on three open shards, with an edited configuration of the connections table.
async fn start(edit: impl FnOnce(ConnectionsConfig) -> ConnectionsConfig) -> Worker {
    let mut worker = Worker::new();
    for shard in ["one", "other", "third"] {
        worker.streams.open(shard, None);
    }
    worker
        .start_and_wait(|mut config| {
            config.delivery.connections = edit(config.delivery.connections);
            config
        })
        .await;
    worker
}

/// Starts a worker that posts to every connection.
async fn start_broadcast(mut worker: Worker, index: Option<&str>) -> Worker {
    worker.streams.open("one", None);
    let mut spec = spec();
    (spec.connections.partition_key, spec.connections.value) = (None, None);
    let rules = Arc::new(CompiledSpec::new(&spec).unwrap());
    let index = index.map(str::to_owned);
    worker
        .start_and_wait(|mut config| {
            config.delivery.connections =
                ConnectionsConfig { partition_key: None, index, ..config.delivery.connections };
            WorkerConfig { rules, ..config }
        })
        .await;
    worker
}

fn unedited(config: ConnectionsConfig) -> ConnectionsConfig {
    config
}

fn with_ttl(config: ConnectionsConfig) -> ConnectionsConfig {
    ConnectionsConfig { ttl_attribute: Some("ttl".to_owned()), ..config }
}

fn with_cache(seconds: u64) -> impl Fn(ConnectionsConfig) -> ConnectionsConfig {
    move |config| ConnectionsConfig { cache_ttl: Duration::from_secs(seconds), ..config }
}

/// The number of lookups from this source.
fn lookups(worker: &Worker, source: &str) -> u64 {
    worker.metric_value("connection_lookups_total", &[("source", source)])
}

/// Reason and message of each warning.
fn warnings(worker: &Worker) -> Vec<(&'static str, String)> {
    let warnings = worker.health().warnings.into_values();
    warnings.map(|warning| (warning.reason.as_str(), warning.message)).collect()
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test(start_paused = true)]
async fn queries_once_for_the_records_of_one_key_in_a_page() {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("second", "fuga");
    worker.connections.set_latency(ms(20));
    for n in 1..=500 {
        let sk = if n % 2 == 0 { "hoge" } else { "fuga" };
        worker.streams.append("one", new_record(n, &format!("item-{n}"), sk));
    }
    worker.wait_until("all messages are delivered", || worker.gateway.delivered() == 500).await;
    assert_eq!(worker.connections.queries(), 2);
    assert_eq!(lookups(&worker, "query"), 2);
    assert_eq!(lookups(&worker, "coalesced"), 498);
    worker.streams.append("one", new_record(501, "fuga", "hoge"));
    worker.wait_until("the next page is delivered", || worker.gateway.delivered() == 501).await;
    assert_eq!(worker.connections.queries(), 3, "the next page has its own lookup");
}

#[tokio::test(start_paused = true)]
async fn shares_a_lookup_between_shards_if_it_began_after_both_reads() {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.set_latency(ms(2_000));
    // The others wait for this lookup, which began before they were read, then share the next one.
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_until("a lookup is in flight", || worker.connections.queries() == 1).await;
    for n in 2..=41 {
        let shard = if n % 2 == 0 { "other" } else { "third" };
        worker.streams.append(shard, new_record(n, &format!("item-{n}"), "hoge"));
    }
    worker.wait_until("all messages are delivered", || worker.gateway.delivered() == 41).await;
    assert_eq!(worker.connections.queries(), 2);
}

/// Stores a row after a lookup of its key began, and changes its item at once.
async fn assert_late_row_is_found(in_flight: bool) {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hoge");
    // A page contains the rows that were stored at its request.
    worker.connections.set_latency(if in_flight { ms(5_000) } else { ms(1) });
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_until("the lookup has begun", || worker.connections.queries() == 1).await;
    sleep(ms(100)).await;
    assert_eq!(worker.gateway.delivered() == 0, in_flight);
    worker.connections.put_new("late", "hoge");
    worker.streams.append("other", new_record(2, "fuga", "hoge"));
    worker.wait_until("both messages are delivered", || worker.gateway.delivered() == 3).await;
    assert_eq!(worker.gateway.received("late"), [message("fuga", 2)]);
    assert_eq!(worker.connections.queries(), 2);
}

#[tokio::test(start_paused = true)]
async fn finds_a_row_stored_while_a_lookup_is_in_flight() {
    assert_late_row_is_found(true).await;
}

#[tokio::test(start_paused = true)]
async fn finds_a_row_stored_after_a_lookup_ended() {
    assert_late_row_is_found(false).await;
}

#[tokio::test(start_paused = true)]
async fn uses_no_kept_lookup_for_a_later_record() {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.set_latency(ms(60_000));
    worker.streams.append("third", new_record(1, "fuga", "slow"));
    worker.wait_until("a page is in progress", || worker.connections.queries() == 1).await;
    worker.connections.set_latency(ms(1));
    worker.streams.append("one", new_record(2, "fuga", "hoge"));
    worker.wait_until("the message is delivered", || worker.gateway.delivered() == 1).await;
    sleep(ms(100)).await;
    worker.connections.put_new("late", "hoge");
    worker.streams.append("other", new_record(3, "fuga", "hoge"));
    worker.wait_until("both messages are delivered", || worker.gateway.delivered() == 3).await;
    assert_eq!(worker.gateway.received("late").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn reuses_a_lookup_until_cache_seconds_have_passed() {
    let worker = start(with_cache(5)).await;
    worker.connections.put_new("first", "hoge");
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_until("the message is delivered", || worker.gateway.delivered() == 1).await;
    worker.connections.put_new("late", "hoge");
    worker.sleep_seconds(4).await;
    worker.streams.append("other", new_record(2, "fuga", "hoge"));
    worker
        .wait_until("the first connection has its message", || worker.gateway.delivered() == 2)
        .await;
    assert_eq!(worker.gateway.received("late"), [""; 0]);
    assert_eq!(lookups(&worker, "cache"), 1);
    worker.sleep_seconds(2).await;
    worker.streams.append("one", new_record(3, "fuga", "hoge"));
    worker.wait_until("both messages are delivered", || worker.gateway.delivered() == 4).await;
    assert_eq!(worker.connections.queries(), 2);
}

#[tokio::test(start_paused = true)]
async fn excludes_a_closed_connection_from_the_cache() {
    let worker = start(with_cache(300)).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("closed", "hoge");
    worker.gateway.script("closed", &[(0, 410)]);
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_until("its row is deleted", || worker.connections.stored() == ["first"]).await;
    let posts = worker.gateway.posts().len();
    worker.streams.append("other", new_record(2, "fuga", "hoge"));
    worker.wait_until("the other message is delivered", || worker.gateway.delivered() == 2).await;
    worker.sleep_seconds(10).await;
    assert_eq!(worker.connections.queries(), 1, "from the cache");
    assert_eq!(worker.gateway.posts().len(), posts + 1);
}

#[tokio::test(start_paused = true)]
async fn keeps_messages_in_order_if_a_later_lookup_ends_first() {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_row(Item::from([
        ("connection_id".to_owned(), text("first")),
        ("sk".to_owned(), text("fuga")),
    ]));
    worker.connections.set_latency(ms(3_000));
    worker.streams.append("other", new_record(1, "fuga", "hoge"));
    worker.wait_until("a lookup is in flight", || worker.connections.queries() == 1).await;
    // The first record waits for that lookup, then for its own. The lookup of the second ends first.
    worker.streams.append("one", new_record(2, "fuga", "hoge"));
    worker.streams.append("one", new_record(3, "fuga", "fuga"));
    worker.wait_until("all messages are delivered", || worker.gateway.delivered() == 3).await;
    let received = worker.gateway.received("first");
    assert!(received[1].contains("\"2\"") && received[2].contains("\"3\""), "{received:?}");
}

#[tokio::test(start_paused = true)]
async fn serves_all_waiting_records_with_the_retried_lookup() {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.set_error(Some(ConnectionsErrorKind::Unavailable));
    for (n, shard) in [(1, "one"), (2, "other"), (3, "one"), (4, "other")] {
        worker.streams.append(shard, new_record(n, &format!("item-{n}"), "hoge"));
    }
    worker
        .wait_until("the problem is reported", || {
            worker.problem_reasons().contains(&"ConnectionsUnavailable")
        })
        .await;
    let before = worker.connections.queries();
    worker.connections.set_error(None);
    worker.wait_until("all messages are delivered", || worker.gateway.delivered() == 4).await;
    assert_eq!(worker.connections.queries(), before + 1);
    assert!(worker.problem_reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn reports_a_failing_lookup_while_others_succeed() {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hot");
    worker.connections.put_new("second", "cold");
    worker.connections.set_throttled_value(Some("hot"));
    worker.streams.append("one", new_record(1, "fuga", "hot"));
    let is_reported = || worker.problem_reasons().contains(&"ConnectionsUnavailable");
    worker.wait_until("the problem is reported", is_reported).await;
    for n in 2..60 {
        worker.streams.append("other", new_record(n, "fuga", "cold"));
        worker
            .wait_until("the other key is delivered", || worker.gateway.delivered() as u32 == n - 1)
            .await;
        assert!(is_reported(), "record {n}");
        worker.sleep_seconds(1).await;
    }
    worker.connections.set_throttled_value(None);
    worker.wait_until("the lookup succeeds", || worker.gateway.received("first").len() == 1).await;
    assert!(worker.problem_reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn posts_once_to_a_connection_with_several_rows() {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("second", "hoge");
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_settled("one", 1).await;
    assert_eq!(worker.gateway.received("first").len(), 1);
    assert_eq!(worker.gateway.received("second").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn posts_once_to_every_connection_without_a_partition_key() {
    let worker = start_broadcast(Worker::with_pages(1_000, 20), None).await;
    for n in 0..500 {
        worker.connections.put_new(&format!("connection-{n:03}"), &format!("sk-{n}"));
    }
    // A connection that watches two items has two rows.
    worker.connections.put_new("connection-007", "another");
    worker.connections.set_latency(ms(10));
    for n in 1..=100 {
        worker.streams.append("one", new_record(n, &format!("item-{n}"), "hoge"));
    }
    worker.wait_until("all messages are delivered", || worker.gateway.delivered() == 50_000).await;
    assert_eq!(worker.gateway.received("connection-007").len(), 100);
    assert_eq!(worker.gateway.received("connection-499").len(), 100);
    let scans = worker.connections.scans();
    assert_eq!(scans.keys().copied().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert!(scans.values().all(|pages| *pages == 4), "one scan of 63 rows per segment: {scans:?}");
    assert_eq!(lookups(&worker, "scan"), 1);
    assert_eq!(worker.connections.queries(), 0);
}

#[tokio::test(start_paused = true)]
async fn uses_no_scan_that_began_before_the_record_was_read() {
    let worker = start_broadcast(Worker::new(), Some("sk-index")).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.set_latency(ms(1_000));
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_until("the scan has begun", || !worker.connections.scans().is_empty()).await;
    sleep(ms(100)).await;
    worker.connections.put_new("late", "hoge");
    worker.streams.append("one", new_record(2, "fuga", "hoge"));
    worker.wait_until("all messages are delivered", || worker.gateway.delivered() == 3).await;
    assert_eq!(worker.gateway.received("late").len(), 1);
    assert_eq!(lookups(&worker, "scan"), 2);
}

#[tokio::test(start_paused = true)]
async fn skips_and_counts_rows_past_their_ttl() {
    let worker = start(with_ttl).await;
    let now = NOW.0;
    worker.connections.put_new("without", "hoge");
    worker.connections.put_until("future", "hoge", now + 3_600);
    worker.connections.put_until("past", "hoge", now - 60);
    worker.connections.put_until("zero", "hoge", 0);
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_settled("one", 1).await;
    assert_eq!(worker.gateway.delivered(), 3);
    assert_eq!(worker.gateway.received("past"), [""; 0]);
    assert_eq!(worker.metric_value("stale_connection_rows_total", &[("outcome", "expired")]), 1);
    assert_eq!(warnings(&worker), []);
}

#[tokio::test(start_paused = true)]
async fn reports_a_ttl_in_milliseconds_and_posts_to_its_row() {
    let worker = start(with_ttl).await;
    worker.connections.put_until("milliseconds", "hoge", (NOW.0 - 60) * 1_000);
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_until("the message is delivered", || worker.gateway.delivered() == 1).await;
    let reported = warnings(&worker);
    assert_eq!(reported[0].0, "InvalidTtlUnit");
    assert!(
        reported[0].1.contains("\"ttl\"") && reported[0].1.contains("seconds since 1970"),
        "{reported:?}"
    );
    assert!(worker.problem_reasons().is_empty(), "the problem must not affect Ready");
    // The warning stays for 10 minutes after the last invalid row.
    worker.connections.put_until("valid", "fuga", NOW.0 + 7_200);
    worker.streams.append("one", new_record(2, "fuga", "fuga"));
    worker.wait_until("the other message is delivered", || worker.gateway.delivered() == 2).await;
    assert_eq!(warnings(&worker).len(), 1);
    worker.sleep_seconds(700).await;
    worker.streams.append("one", new_record(3, "fuga", "fuga"));
    worker.wait_until("the warning is cleared", || warnings(&worker).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn reports_rows_without_a_connection_id() {
    for (index, parts) in [
        (Some("sk-index".to_owned()), ["KEYS_ONLY", "index \"sk-index\"", "\"connection_id\""]),
        (None, ["connections.connectionIdAttribute", "table", "\"connection_id\""]),
    ] {
        let partition_key = index.as_ref().map(|_| "sk".to_owned());
        let edit = |config| ConnectionsConfig { index, partition_key, ..config };
        let worker = start(edit).await;
        worker.connections.put_new("first", "hoge");
        worker.connections.put_row(Item::from([("sk".to_owned(), text("hoge"))]));
        worker.streams.append("one", new_record(1, "fuga", "hoge"));
        worker
            .wait_until("the other message is delivered", || worker.gateway.delivered() == 1)
            .await;
        let reported = warnings(&worker);
        assert_eq!(reported[0].0, "ConnectionIdMissing");
        assert!(parts.iter().all(|part| reported[0].1.contains(part)), "{reported:?}");
        assert_eq!(messages(&worker, "invalid_row"), 1);
        assert!(worker.problem_reasons().is_empty(), "the problem must not affect Ready");
    }
}

#[tokio::test(start_paused = true)]
async fn reports_a_missing_permission_to_delete_rows_and_delivers() {
    let worker = start(unedited).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("closed", "hoge");
    worker.connections.deny_deletes(true);
    worker.gateway.script("closed", &[(0, 410)]);
    worker.streams.append("one", new_record(1, "fuga", "hoge"));
    worker.wait_until("the warning is reported", || !warnings(&worker).is_empty()).await;
    let reported = warnings(&worker);
    assert_eq!(reported[0].0, "StaleRowDeletionDenied");
    let table = "table \"sample-connections-dev\"";
    assert!(
        ["dynamodb:DeleteItem", table].iter().all(|word| reported[0].1.contains(word)),
        "{reported:?}"
    );
    worker.wait_settled("one", 1).await;
    assert!(worker.problem_reasons().is_empty(), "the problem must not affect Ready");
    worker.connections.deny_deletes(false);
    worker.streams.append("one", new_record(2, "fuga", "hoge"));
    worker.wait_until("its row is deleted", || worker.connections.stored() == ["first"]).await;
    worker.wait_until("the warning is cleared", || warnings(&worker).is_empty()).await;
    assert_eq!(worker.gateway.delivered(), 2);
}
