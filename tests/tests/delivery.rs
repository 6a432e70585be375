//! The worker on a scripted gateway: fast, ordered, fair, on a paused clock.

use std::collections::BTreeSet;
use std::time::Duration;

use stream_notifier::delivery::ConnectionsErrorKind;
use stream_notifier::model::{AttributeValue, Item, Position};
use stream_notifier::streams::InitialPosition;
use stream_notifier_tests::fakes::{Worker, change, number, shard_id};
use tokio::time::Instant;

/// A worker that reads one open shard.
async fn started(mut worker: Worker) -> Worker {
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;
    worker
}

/// `n` connections that get every change of `hoge`.
fn connect(worker: &Worker, n: usize) {
    for n in 0..n {
        worker.connections.put(&format!("connection-{n:03}"), "hoge", "2026-01-01");
    }
}

fn settled_up_to(worker: &Worker, n: u32) -> bool {
    let only = shard_id("only");
    let checkpoint = worker.store.checkpoint();
    checkpoint.and_then(|checkpoint| checkpoint.shards.get(&only).cloned())
        == Some(Position::After(number(n)))
}

#[tokio::test(start_paused = true)]
async fn every_page_of_rows_is_told() {
    let worker = started(Worker::with_pages(1000, 100)).await;
    connect(&worker, 150);
    worker.connections.put("elsewhere", "other", "2026-01-01");
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("all are told", || worker.gateway.delivered() == 150).await;
    assert_eq!(worker.connections.queries(), 2);
    assert_eq!(
        worker.gateway.received("connection-149"),
        [r#"{"pk":"fuga","sk":"hoge","value":"1"}"#]
    );
    assert_eq!(worker.gateway.received("elsewhere"), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn posts_run_side_by_side_but_never_two_for_one_connection() {
    let worker = started(Worker::new()).await;
    connect(&worker, 100);
    worker.gateway.everyone(200, 200);
    for n in 1..=5 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
    }
    let begun = Instant::now();
    worker.until("all are told", || worker.gateway.delivered() == 500).await;
    let took = begun.elapsed();
    assert!(worker.gateway.most_in_flight() >= 64, "{}", worker.gateway.most_in_flight());
    assert!(!worker.gateway.two_for_one());
    assert!(took < Duration::from_secs(2), "5 rounds of 200 ms took {took:?}");
    let values = |n: u32| format!(r#"{{"pk":"fuga","sk":"hoge","value":"{n}"}}"#);
    assert_eq!(worker.gateway.received("connection-042"), (1..=5).map(values).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_slow_first_and_a_quick_second_arrive_in_order() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(5_000, 200), (0, 200)]);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("both are told", || worker.gateway.delivered() == 2).await;
    let told = worker.gateway.received("connection-000");
    assert!(told[0].contains("\"1\"") && told[1].contains("\"2\""), "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_fails_is_tried_again_before_the_next_one() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(0, 500), (0, 429), (0, 503), (0, 200)]);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("both are told", || worker.gateway.delivered() == 2).await;
    let posts: Vec<_> = worker.gateway.posts().into_iter().map(|post| post.message).collect();
    assert_eq!(posts.len(), 5);
    assert!(posts[..4].iter().all(|message| message.contains("\"1\"")), "{posts:?}");
}

#[tokio::test(start_paused = true)]
async fn a_row_written_before_its_connection_is_up_gets_its_message_and_stays() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(0, 410), (0, 410), (0, 200)]);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.gateway.delivered() == 1).await;
    worker.after(60).await;
    assert_eq!(worker.connections.stored(), ["connection-000"]);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_vanished_loses_its_row_and_holds_up_nobody() {
    let worker = started(Worker::new()).await;
    connect(&worker, 3);
    worker.gateway.script("connection-001", &[(0, 410)]);
    let begun = Instant::now();
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("the others are told", || worker.gateway.delivered() == 4).await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    worker.until("its row is gone", || worker.connections.stored().len() == 2).await;
    assert!(begun.elapsed() >= Duration::from_secs(7), "not before it was asked again for 7 s");
    worker.until("both records are settled", || settled_up_to(&worker, 2)).await;
    let tries =
        worker.gateway.posts().iter().filter(|post| post.connection == "connection-001").count();
    assert_eq!(tries, 4, "the second message is for nobody");
}

#[tokio::test(start_paused = true)]
async fn a_row_that_was_written_again_stays() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(0, 410), (0, 410), (0, 410), (9_000, 410)]);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("the last try is under way", || worker.connections.reads() == 1).await;
    worker.connections.put("connection-000", "hoge", "2026-12-31");
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert_eq!(worker.connections.stored(), ["connection-000"]);
}

/// It was there when the gateway said for the last time that its connection is not.
#[tokio::test(start_paused = true)]
async fn a_row_that_was_written_again_before_the_last_try_goes() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.gateway.script("connection-000", &[(0, 410)]);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it was tried", || !worker.gateway.posts().is_empty()).await;
    worker.connections.put("connection-000", "hoge", "2026-12-31");
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert_eq!(worker.connections.stored(), [""; 0]);
    assert_eq!(worker.gateway.posts().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_wrong_api_deletes_no_rows_in_masses() {
    let worker = started(Worker::new()).await;
    connect(&worker, 200);
    worker.gateway.everyone(20, 410);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.reasons() == ["AllConnectionsGone"]).await;
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert_eq!(worker.connections.stored().len(), 200);
    // The right API again: those that are really gone go, and the trouble is over.
    worker.gateway.everyone(20, 200);
    worker.gateway.script("connection-007", &[(20, 410)]);
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("the others are told", || worker.gateway.delivered() == 199).await;
    worker.until("its row is gone", || worker.connections.stored().len() == 199).await;
    assert!(worker.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn forbidden_for_a_while_loses_nothing_and_deletes_nothing() {
    let worker = started(Worker::new()).await;
    connect(&worker, 30);
    worker.gateway.everyone(5, 403);
    for n in 1..=10 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
    }
    worker.until("it is told", || worker.reasons() == ["GatewayForbidden"]).await;
    let before = worker.gateway.posts().len();
    worker.after(1200).await;
    let probes = worker.gateway.posts().len() - before;
    assert!((20..=120).contains(&probes), "{probes} probes in 20 minutes");
    assert!(!settled_up_to(&worker, 1));
    worker.gateway.everyone(5, 200);
    worker.until("it is open", || worker.gateway.delivered() > 0).await;
    let open = Instant::now();
    worker.until("all are told", || worker.gateway.delivered() == 300).await;
    assert!(open.elapsed() < Duration::from_secs(1), "all leave at once: {:?}", open.elapsed());
    assert!(worker.reasons().is_empty());
    assert_eq!(worker.connections.stored().len(), 30);
    let told = worker.gateway.received("connection-013");
    let values = |n: u32| format!(r#"{{"pk":"fuga","sk":"hoge","value":"{n}"}}"#);
    assert_eq!(told, (1..=10).map(values).collect::<Vec<_>>(), "in order");
    worker.until("all are settled", || settled_up_to(&worker, 10)).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_once_the_worker_has_stopped() {
    let mut worker = started(Worker::new()).await;
    connect(&worker, 30);
    worker.gateway.everyone(5, 403);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.reasons() == ["GatewayForbidden"]).await;
    let waiting = |worker: &Worker| {
        let metrics = worker.metrics.encode();
        let waiting = metrics.lines().filter(|line| line.starts_with("stream_notifier_queued_"));
        let count = |line: &str| line.rsplit(' ').next().unwrap().parse::<i64>().unwrap();
        waiting.map(count).collect::<Vec<_>>()
    };
    assert_eq!(waiting(&worker), [30, 30 * 1024]);
    worker.stop().await;
    worker.after(1).await;
    assert_eq!(waiting(&worker), [0, 0], "they are the next worker's");
    worker.gateway.everyone(5, 200);
    worker.start("b", InitialPosition::Latest);
    worker.until("all are told", || worker.gateway.delivered() == 30).await;
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert_eq!(waiting(&worker), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn time_at_the_shut_gate_is_not_the_messages_own() {
    let worker = started(Worker::new()).await;
    connect(&worker, 60);
    worker.gateway.everyone(5, 403);
    for n in 1..=3 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
    }
    worker.after(1_200).await;
    // The right is back, and the burst is throttled at first.
    for n in 0..60 {
        worker.gateway.script(&format!("connection-{n:03}"), &[(5, 429), (5, 500), (5, 200)]);
    }
    worker.until("all are told", || worker.gateway.delivered() == 180).await;
    let metrics = worker.metrics.encode();
    let mut expired = metrics.lines().filter(|line| line.contains(r#"outcome="expired""#));
    assert!(expired.all(|line| line.ends_with(" 0")), "{metrics}");
}

#[tokio::test(start_paused = true)]
async fn a_shut_gate_holds_those_too_who_wait_for_a_place() {
    let worker = started(Worker::new()).await;
    connect(&worker, 3_000);
    worker.gateway.everyone(20, 403);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.after(5).await;
    let posts = worker.gateway.posts().len();
    assert!(posts <= 270, "{posts} posts, all forbidden");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_api_deletes_nothing_however_long_it_goes_on() {
    let worker = started(Worker::new()).await;
    connect(&worker, 200);
    worker.gateway.everyone(20, 410);
    for n in 1..=40 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
        worker.after(8).await;
    }
    assert_eq!(worker.connections.stored().len(), 200);
}

#[tokio::test(start_paused = true)]
async fn an_index_that_is_taken_away_holds_its_records_until_it_is_back() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.connections.set_index(false);
    for n in 1..=10 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
    }
    worker.until("it is told", || worker.reasons() == ["ConnectionsIndexNotFound"]).await;
    worker.after(600).await;
    assert!(!settled_up_to(&worker, 1));
    worker.connections.set_index(true);
    worker.until("all are told", || worker.gateway.delivered() == 10).await;
    assert!(worker.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_gateway_without_a_usable_answer_is_told_after_a_minute() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.gateway.everyone(0, 500);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.after(50).await;
    assert!(worker.reasons().is_empty());
    worker.until("it is told", || worker.reasons() == ["GatewayUnavailable"]).await;
    worker.gateway.everyone(0, 200);
    worker.until("it is told", || worker.gateway.delivered() == 1).await;
    assert!(worker.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_does_not_read_holds_up_nobody_for_ever() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.connections.put("deaf", "hoge", "2026-01-01");
    worker.gateway.script("deaf", &[(0, 429)]);
    for n in 1..=20_000 {
        worker.streams.append("only", change(n, "fuga", "hoge"));
    }
    worker.until("the other is told", || worker.gateway.delivered() == 20_000).await;
    worker.until("all are settled", || settled_up_to(&worker, 20_000)).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_connection_id_is_never_part_of_a_url() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    for id in ["..", "a/../../b", "a?b", "a b", &"a".repeat(129)] {
        worker.connections.put(id, "hoge", "2026-01-01");
    }
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert_eq!(worker.gateway.posts().len(), 1);
    assert!(worker.metrics.encode().contains(r#"outcome="invalid_row"} 5"#));
}

#[tokio::test(start_paused = true)]
async fn what_never_gets_through_is_dropped_and_counted() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.gateway.everyone(0, 500);
    let begun = Instant::now();
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert!(begun.elapsed() >= Duration::from_secs(300), "{:?}", begun.elapsed());
    let metrics = worker.metrics.encode();
    assert!(metrics.contains(r#"outcome="expired"} 1"#), "{metrics}");
    assert_eq!(worker.connections.stored(), ["connection-000"]);
}

#[tokio::test(start_paused = true)]
async fn too_large_is_dropped_at_once_and_never_tried_again() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.gateway.everyone(0, 413);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
    assert_eq!(worker.gateway.posts().len(), 1);
    assert!(worker.metrics.encode().contains(r#"outcome="too_large"} 1"#));
}

#[tokio::test(start_paused = true)]
async fn a_record_uses_a_lookup_that_began_after_it_was_read() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.gateway.delivered() == 1).await;
    worker.connections.put("late", "hoge", "2026-01-01");
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("both are told", || worker.gateway.delivered() == 3).await;
    assert_eq!(worker.gateway.received("late").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_that_fails_holds_its_record_and_loses_nothing() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.connections.fail(Some(ConnectionsErrorKind::AccessDenied));
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.reasons() == ["ConnectionsAccessDenied"]).await;
    worker.after(3_000).await;
    assert!(!settled_up_to(&worker, 1));
    worker.connections.fail(None);
    worker.until("it is told", || worker.gateway.delivered() == 1).await;
    assert!(worker.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_value_of_another_type_than_the_key_is_invalid_and_stops_nothing() {
    let worker = Worker::new();
    worker.connections.set_key_type("N");
    let worker = started(worker).await;
    connect(&worker, 1);
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.streams.append("only", change(2, "fuga", "hoge"));
    worker.until("both are settled", || settled_up_to(&worker, 2)).await;
    let metrics = worker.metrics.encode();
    let records = |result: &str, count: u32| {
        let begin = "stream_notifier_records_total{namespace=\"test\",name=\"notifier\"";
        metrics.contains(&format!("{begin},result=\"{result}\"}} {count}\n"))
    };
    assert!(records("invalid", 2) && records("matched", 0), "{metrics}");
    assert_eq!(worker.connections.queries(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_query_that_is_refused_holds_its_record_and_is_told() {
    let worker = started(Worker::new()).await;
    connect(&worker, 1);
    worker.connections.fail(Some(ConnectionsErrorKind::Invalid));
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("it is told", || worker.reasons().contains(&"ConnectionsUnavailable")).await;
    assert!(!settled_up_to(&worker, 1));
    worker.connections.fail(None);
    worker.until("it arrives", || worker.gateway.delivered() == 1).await;
    assert!(worker.reasons().is_empty());
}

#[tokio::test(start_paused = true)]
async fn rows_without_a_connection_id_are_counted_and_the_others_told() {
    let worker = started(Worker::new()).await;
    connect(&worker, 2);
    let text = |text: &str| AttributeValue::S(text.to_owned());
    worker.connections.put_row(Item::from([("sk".to_owned(), text("hoge"))]));
    worker.streams.append("only", change(1, "fuga", "hoge"));
    worker.until("the others are told", || worker.gateway.delivered() == 2).await;
    assert!(worker.metrics.encode().contains(r#"outcome="invalid_row"} 1"#));
    worker.until("it is settled", || settled_up_to(&worker, 1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_worked_off_within_its_bounds() {
    let worker = started(Worker::new()).await;
    connect(&worker, 50);
    worker.gateway.everyone(10, 200);
    for n in 1..=2_000 {
        worker.streams.append("only", change(n, &format!("item-{n}"), "hoge"));
    }
    worker.until("all are told", || worker.gateway.delivered() == 100_000).await;
    assert!(worker.gateway.most_in_flight() <= 1024, "{}", worker.gateway.most_in_flight());
    let told: BTreeSet<_> = worker.gateway.received("connection-000").into_iter().collect();
    assert_eq!(told.len(), 2_000);
    worker.until("all are settled", || settled_up_to(&worker, 2_000)).await;
}
