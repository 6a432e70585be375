//! Which lookup a record uses, and what rows mean, on scripted neighbours and a paused clock.

use std::sync::Arc;
use std::time::Duration;

use stream_notifier::delivery::{ConnectionsConfig, ConnectionsErrorKind};
use stream_notifier::model::{AttributeValue, Item, Position};
use stream_notifier::rules::CompiledSpec;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{NOW, Worker, change, number, shard_id, spec};
use tokio::time::sleep;

/// A worker that reads three shards, with a source that is another than the usual one.
async fn started(
    mut worker: Worker,
    change: impl FnOnce(ConnectionsConfig) -> ConnectionsConfig,
) -> Worker {
    worker.streams.open("one", None);
    worker.streams.open("other", None);
    worker.streams.open("third", None);
    worker.start_with(|mut job| {
        job.delivery.connections = change(job.delivery.connections);
        job
    });
    worker.started().await;
    worker
}

/// A worker that tells every connection there is.
async fn broadcasting(mut worker: Worker, index: Option<&str>) -> Worker {
    worker.streams.open("one", None);
    let mut spec = spec();
    (spec.connections.partition_key, spec.connections.value) = (None, None);
    let notifier = Arc::new(CompiledSpec::new(&spec).unwrap());
    let index = index.map(str::to_owned);
    worker.start_with(|mut job| {
        job.delivery.connections =
            ConnectionsConfig { partition_key: None, index, ..job.delivery.connections };
        WorkerConfig { rules: notifier, ..job }
    });
    worker.started().await;
    worker
}

fn as_it_is(source: ConnectionsConfig) -> ConnectionsConfig {
    source
}

fn with_ttl(source: ConnectionsConfig) -> ConnectionsConfig {
    ConnectionsConfig { ttl_attribute: Some("ttl".to_owned()), ..source }
}

fn cached(seconds: u64) -> impl Fn(ConnectionsConfig) -> ConnectionsConfig {
    move |source| ConnectionsConfig { cache: Duration::from_secs(seconds), ..source }
}

fn settled_up_to(worker: &Worker, n: u32) -> bool {
    let one = shard_id("one");
    let checkpoint = worker.store.checkpoint();
    checkpoint.and_then(|checkpoint| checkpoint.shards.get(&one).cloned())
        == Some(Position::After(number(n)))
}

fn counted(worker: &Worker, metric: &str, label: &str) -> u64 {
    let text = worker.metrics.encode();
    let begin = format!("stream_notifier_{metric}_total{{");
    let label = format!("=\"{label}\"}} ");
    let line = text.lines().find(|line| line.starts_with(&begin) && line.contains(&label));
    // Every counter is there from the start.
    line.expect(&label).rsplit(' ').next().unwrap().parse().unwrap()
}

fn warnings(worker: &Worker) -> Vec<(&'static str, String)> {
    let warnings = worker.picture().warnings;
    warnings.into_values().map(|warning| (warning.reason.as_str(), warning.message)).collect()
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[tokio::test(start_paused = true)]
async fn changes_of_one_key_within_a_page_are_one_query() {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("second", "fuga");
    worker.connections.take(ms(20));
    for n in 1..=500 {
        let sk = if n % 2 == 0 { "hoge" } else { "fuga" };
        worker.streams.append("one", change(n, &format!("item-{n}"), sk));
    }
    worker.until("all are told", || worker.gateway.delivered() == 500).await;
    assert_eq!(worker.connections.queries(), 2);
    assert_eq!(counted(&worker, "connection_lookups", "query"), 2);
    assert_eq!(counted(&worker, "connection_lookups", "coalesced"), 498);
    worker.streams.append("one", change(501, "fuga", "hoge"));
    worker.until("the next page is told", || worker.gateway.delivered() == 501).await;
    assert_eq!(worker.connections.queries(), 3, "by a lookup of its own");
}

#[tokio::test(start_paused = true)]
async fn shards_share_a_lookup_that_began_after_both_were_read() {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.take(ms(2_000));
    // Both wait for this one, which began before they were read, and then share the next.
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("a lookup is under way", || worker.connections.queries() == 1).await;
    for n in 2..=41 {
        let shard = if n % 2 == 0 { "other" } else { "third" };
        worker.streams.append(shard, change(n, &format!("item-{n}"), "hoge"));
    }
    worker.until("all are told", || worker.gateway.delivered() == 41).await;
    assert_eq!(worker.connections.queries(), 2);
}

/// A row is stored after a lookup of its key began, and its client's item changes at once.
async fn told_although_stored_late(under_way: bool) {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hoge");
    // What a page has is what was stored when it was asked for.
    worker.connections.take(if under_way { ms(5_000) } else { ms(1) });
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("it is looked up", || worker.connections.queries() == 1).await;
    sleep(ms(100)).await;
    assert_eq!(worker.gateway.delivered() == 0, under_way);
    worker.connections.put_new("late", "hoge");
    worker.streams.append("other", change(2, "fuga", "hoge"));
    worker.until("both are told", || worker.gateway.delivered() == 3).await;
    assert_eq!(worker.gateway.received("late"), [r#"{"pk":"fuga","sk":"hoge","value":"2"}"#]);
    assert_eq!(worker.connections.queries(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_client_stored_while_a_lookup_is_under_way_is_told_of_a_change_after_it() {
    told_although_stored_late(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_client_stored_after_a_lookup_has_ended_is_told_of_a_change_after_it() {
    told_although_stored_late(false).await;
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_is_kept_for_another_shard_serves_no_later_record() {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.take(ms(60_000));
    worker.streams.append("third", change(1, "fuga", "slow"));
    worker.until("a page is at work", || worker.connections.queries() == 1).await;
    worker.connections.take(ms(1));
    worker.streams.append("one", change(2, "fuga", "hoge"));
    worker.until("it is told", || worker.gateway.delivered() == 1).await;
    sleep(ms(100)).await;
    worker.connections.put_new("late", "hoge");
    worker.streams.append("other", change(3, "fuga", "hoge"));
    worker.until("both are told", || worker.gateway.delivered() == 3).await;
    assert_eq!(worker.gateway.received("late").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cache_gives_up_new_clients_for_fewer_queries_and_only_for_so_long() {
    let worker = started(Worker::new(), cached(5)).await;
    worker.connections.put_new("first", "hoge");
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.gateway.delivered() == 1).await;
    worker.connections.put_new("late", "hoge");
    worker.after(4).await;
    worker.streams.append("other", change(2, "fuga", "hoge"));
    worker.until("the first is told again", || worker.gateway.delivered() == 2).await;
    assert_eq!(worker.gateway.received("late"), [""; 0]);
    assert_eq!(counted(&worker, "connection_lookups", "cache"), 1);
    worker.after(2).await;
    worker.streams.append("one", change(3, "fuga", "hoge"));
    worker.until("both are told", || worker.gateway.delivered() == 4).await;
    assert_eq!(worker.connections.queries(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_connection_found_gone_is_left_out_of_the_cache() {
    let worker = started(Worker::new(), cached(300)).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("gone", "hoge");
    worker.gateway.script("gone", &[(0, 410)]);
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("its row is gone", || worker.connections.stored() == ["first"]).await;
    let posts = worker.gateway.posts().len();
    worker.streams.append("other", change(2, "fuga", "hoge"));
    worker.until("the other is told", || worker.gateway.delivered() == 2).await;
    worker.after(10).await;
    assert_eq!(worker.connections.queries(), 1, "from the cache");
    assert_eq!(worker.gateway.posts().len(), posts + 1);
}

#[tokio::test(start_paused = true)]
async fn lookups_overtake_each_other_and_messages_do_not() {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_row(Item::from([
        ("connection_id".to_owned(), text("first")),
        ("sk".to_owned(), text("fuga")),
    ]));
    worker.connections.take(ms(3_000));
    worker.streams.append("other", change(1, "fuga", "hoge"));
    worker.until("a lookup is under way", || worker.connections.queries() == 1).await;
    // The first record waits for that one, and then for its own; the second is found sooner.
    worker.streams.append("one", change(2, "fuga", "hoge"));
    worker.streams.append("one", change(3, "fuga", "fuga"));
    worker.until("all are told", || worker.gateway.delivered() == 3).await;
    let told = worker.gateway.received("first");
    assert!(told[1].contains("\"2\"") && told[2].contains("\"3\""), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_fails_serves_all_who_wait_once_it_works() {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.fail(Some(ConnectionsErrorKind::Unavailable));
    for (n, shard) in [(1, "one"), (2, "other"), (3, "one"), (4, "other")] {
        worker.streams.append(shard, change(n, &format!("item-{n}"), "hoge"));
    }
    worker.until("it is told", || worker.reasons().contains(&"ConnectionsUnavailable")).await;
    let before = worker.connections.queries();
    worker.connections.fail(None);
    worker.until("all are told", || worker.gateway.delivered() == 4).await;
    assert_eq!(worker.connections.queries(), before + 1);
    assert!(worker.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_fails_is_told_until_it_works_whatever_others_do() {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hot");
    worker.connections.put_new("second", "cold");
    worker.connections.throttle(Some("hot"));
    worker.streams.append("one", change(1, "fuga", "hot"));
    let is_told = || worker.reasons().contains(&"ConnectionsUnavailable");
    worker.until("it is told", is_told).await;
    for n in 2..60 {
        worker.streams.append("other", change(n, "fuga", "cold"));
        worker.until("others work", || worker.gateway.delivered() as u32 == n - 1).await;
        assert!(is_told(), "change {n}");
        worker.after(1).await;
    }
    worker.connections.throttle(None);
    worker.until("it works", || worker.gateway.received("first").len() == 1).await;
    assert!(worker.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_with_several_rows_of_one_key_is_told_once() {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("second", "hoge");
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert_eq!(worker.gateway.received("first").len(), 1);
    assert_eq!(worker.gateway.received("second").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn without_a_key_every_connection_is_told_once() {
    let worker = broadcasting(Worker::with_pages(1_000, 20), None).await;
    for n in 0..500 {
        worker.connections.put_new(&format!("connection-{n:03}"), &format!("sk-{n}"));
    }
    // One that watches two things has two rows.
    worker.connections.put_new("connection-007", "another");
    worker.connections.take(ms(10));
    for n in 1..=100 {
        worker.streams.append("one", change(n, &format!("item-{n}"), "hoge"));
    }
    worker.until("all are told", || worker.gateway.delivered() == 50_000).await;
    assert_eq!(worker.gateway.received("connection-007").len(), 100);
    assert_eq!(worker.gateway.received("connection-499").len(), 100);
    let scans = worker.connections.scans();
    assert_eq!(scans.keys().copied().collect::<Vec<_>>(), (0..8).collect::<Vec<_>>());
    assert!(scans.values().all(|pages| *pages == 4), "63 rows each, once: {scans:?}");
    assert_eq!(counted(&worker, "connection_lookups", "scan"), 1);
    assert_eq!(worker.connections.queries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_scan_serves_nobody_who_was_read_after_it_began() {
    let worker = broadcasting(Worker::new(), Some("sk-index")).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.take(ms(1_000));
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("it is scanned", || !worker.connections.scans().is_empty()).await;
    sleep(ms(100)).await;
    worker.connections.put_new("late", "hoge");
    worker.streams.append("one", change(2, "fuga", "hoge"));
    worker.until("all are told", || worker.gateway.delivered() == 3).await;
    assert_eq!(worker.gateway.received("late").len(), 1);
    assert_eq!(counted(&worker, "connection_lookups", "scan"), 2);
}

#[tokio::test(start_paused = true)]
async fn rows_past_their_ttl_are_skipped_and_counted() {
    let worker = started(Worker::new(), with_ttl).await;
    let now = NOW.0;
    worker.connections.put_new("without", "hoge");
    worker.connections.put_until("to-come", "hoge", now + 3_600);
    worker.connections.put_until("past", "hoge", now - 60);
    worker.connections.put_until("zero-is-none", "hoge", 0);
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert_eq!(worker.gateway.delivered(), 3);
    assert_eq!(worker.gateway.received("past"), [""; 0]);
    assert_eq!(counted(&worker, "stale_connection_rows", "expired"), 1);
    assert_eq!(warnings(&worker), []);
}

#[tokio::test(start_paused = true)]
async fn a_ttl_in_milliseconds_is_told_and_its_row_too() {
    let worker = started(Worker::new(), with_ttl).await;
    worker.connections.put_until("milliseconds", "hoge", (NOW.0 - 60) * 1_000);
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.gateway.delivered() == 1).await;
    let told = warnings(&worker);
    assert_eq!(told[0].0, "InvalidTtlUnit");
    assert!(told[0].1.contains("\"ttl\"") && told[0].1.contains("seconds since 1970"), "{told:?}");
    assert!(worker.reasons().is_empty(), "it is ready all the same");
    // Of another key's rows none is wrong: the fault stays told for a while.
    worker.connections.put_until("right", "fuga", NOW.0 + 7_200);
    worker.streams.append("one", change(2, "fuga", "fuga"));
    worker.until("the other is told", || worker.gateway.delivered() == 2).await;
    assert_eq!(warnings(&worker).len(), 1);
    worker.after(700).await;
    worker.streams.append("one", change(3, "fuga", "fuga"));
    worker.until("it is over", || warnings(&worker).is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn rows_without_an_id_name_the_projection_of_an_index() {
    for (index, words) in [
        (Some("sk-index".to_owned()), ["KEYS_ONLY", "index \"sk-index\"", "\"connection_id\""]),
        (None, ["connections.connectionIdAttribute", "table", "\"connection_id\""]),
    ] {
        let partition_key = index.as_ref().map(|_| "sk".to_owned());
        let at = |source| ConnectionsConfig { index, partition_key, ..source };
        let worker = started(Worker::new(), at).await;
        worker.connections.put_new("first", "hoge");
        worker.connections.put_row(Item::from([("sk".to_owned(), text("hoge"))]));
        worker.streams.append("one", change(1, "fuga", "hoge"));
        worker.until("the other is told", || worker.gateway.delivered() == 1).await;
        let told = warnings(&worker);
        assert_eq!(told[0].0, "ConnectionIdMissing");
        assert!(words.iter().all(|word| told[0].1.contains(word)), "{told:?}");
        assert_eq!(counted(&worker, "messages", "invalid_row"), 1);
        assert!(worker.reasons().is_empty(), "it is ready all the same");
    }
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_delete_rows_delivery_goes_on_and_it_is_told() {
    let worker = started(Worker::new(), as_it_is).await;
    worker.connections.put_new("first", "hoge");
    worker.connections.put_new("gone", "hoge");
    worker.connections.keep_rows(true);
    worker.gateway.script("gone", &[(0, 410)]);
    worker.streams.append("one", change(1, "fuga", "hoge"));
    worker.until("it is told", || !warnings(&worker).is_empty()).await;
    let told = warnings(&worker);
    assert_eq!(told[0].0, "StaleRowDeletionDenied");
    let table = "table \"sample-connections-dev\"";
    assert!(["dynamodb:DeleteItem", table].iter().all(|word| told[0].1.contains(word)), "{told:?}");
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert!(worker.reasons().is_empty(), "it is ready all the same");
    worker.connections.keep_rows(false);
    worker.streams.append("one", change(2, "fuga", "hoge"));
    worker.until("its row is gone", || worker.connections.stored() == ["first"]).await;
    worker.until("it is over", || warnings(&worker).is_empty()).await;
    assert_eq!(worker.gateway.delivered(), 2);
}
