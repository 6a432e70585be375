//! A service that is behind: shards that are listed late, or not found although they are there; and a
//! worker that is, by its budget or by messages that do not get through.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stream_notifier::delivery::DeliveryLimits;
use stream_notifier::streams::{StreamErrorKind, StreamRateLimits};
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::Worker;
use stream_notifier_tests::streams_model::{Call, Fault, Key, Model, Moment, Settings};

use super::twisted::Twisted;
use super::{HOUR, follow, gaps, metric, polling, table, unrolled, values, write};

/// The id of a shard, in the order made.
fn shard(worker: &Worker<Twisted>, index: usize) -> String {
    worker.streams.with(|model| model.shards()[index].id.clone())
}

/// How many descriptions were asked for until now.
fn describes(worker: &Worker<Twisted>) -> f64 {
    let text = worker.metrics.encode();
    let of_it =
        |line: &&str| line.contains("stream_requests_total{") && line.contains("describe_stream");
    text.lines()
        .filter(of_it)
        .map(|it| it.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

/// An iterator is given, and what it points at is trimmed, again and again.
#[tokio::test(start_paused = true)]
async fn a_shard_whose_records_are_always_trimmed_is_not_ready() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    worker.started().await;
    worker.streams.inner.faults(|call, moment| {
        let is_read = (call, moment) == (Call::Records, Moment::Before);
        is_read.then_some(Fault::Fails(StreamErrorKind::Trimmed))
    });
    worker.after(120).await;
    assert_eq!(worker.reasons(), ["StreamUnavailable"]);
    worker.streams.inner.faults(|_, _| None);
    write(&worker, 1);
    worker.until("it is read", || values(&worker) == [1]).await;
    assert_eq!(worker.reasons(), [""; 0]);
}

/// One message of the parent is tried for five minutes.
#[tokio::test(start_paused = true)]
async fn a_child_that_waits_for_the_messages_of_its_parent_is_not_ready() {
    let mut worker = table(unrolled());
    worker.connections.put("slow", "hoge", "2026-01-01");
    worker.gateway.script("slow", &[(0, 429)]);
    worker.start_with(follow);
    worker.started().await;
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.streams.with(|model| model.roll(0));
    write(&worker, 2);
    worker.after(50).await;
    assert_eq!(worker.reasons(), [""; 0]);
    worker.after(20).await;
    assert_eq!(values(&worker), [1], "a child comes after its parent");
    assert_eq!(worker.reasons(), ["ShardBlocked"]);
    worker.until("the message is given up", || values(&worker) == [1, 2]).await;
    assert_eq!(worker.reasons(), [""; 0]);
}

/// Both shards roll at once, and a description shows the children only two seconds later.
#[tokio::test(start_paused = true)]
async fn children_that_are_described_late_are_read_soon_however_many_are_asked_for() {
    for shards in [1, 2, 50] {
        let mut worker = table(Settings { shards, ..unrolled() });
        worker.start_with(follow);
        worker.started().await;
        worker.after(60).await;
        worker.streams.with(|model| {
            model.settings.inconsistency.stale = 1.0;
            model.settings.inconsistency.stale_ms = 4_000;
            (0..shards).for_each(|shard| model.roll(shard));
        });
        write(&worker, 1);
        let begun = tokio::time::Instant::now();
        worker.until("it is read", || values(&worker) == [1]).await;
        assert!(begun.elapsed().as_secs() < 6, "{:?}, {shards} shards", begun.elapsed());
        worker.stop().await;
    }
}

/// 300 shards rolled, and no child is described for ten minutes.
#[tokio::test(start_paused = true)]
async fn many_shards_without_children_leave_descriptions_to_others() {
    let mut worker = table(Settings { shards: 300, ..unrolled() });
    worker.start_with(follow);
    worker.started().await;
    worker.after(60).await;
    worker.streams.with(|model| {
        model.settings.inconsistency.late = 1.0;
        model.settings.inconsistency.late_ms = 1_000 * HOUR * 1_000;
        (0..300).for_each(|shard| model.roll(shard));
    });
    worker.after(60).await;
    let before = describes(&worker);
    worker.after(300).await;
    let a_second = (describes(&worker) - before) / 300.0;
    assert!(a_second < 2.0, "{a_second} descriptions a second, of 8 for everybody");
}

/// What was listed for a moment is neither listed nor found for a while. It is too young to be gone.
#[tokio::test(start_paused = true)]
async fn a_young_shard_that_is_not_found_is_awaited_and_then_its_loss_is_told() {
    for (lasts, told, lost) in [(40, vec![1], 0), (120, vec![], 1)] {
        let mut worker = table(unrolled());
        worker.start_with(follow);
        worker.started().await;
        worker.streams.with(|model| model.roll(0));
        write(&worker, 1);
        *worker.streams.unfound.lock().unwrap() = Some(shard(&worker, 1));
        worker.until("it is begun", || worker.store.checkpoint().unwrap().shards.len() == 2).await;
        *worker.streams.unlisted.lock().unwrap() = Some(shard(&worker, 1));
        worker.after(lasts).await;
        *worker.streams.unfound.lock().unwrap() = None;
        *worker.streams.unlisted.lock().unwrap() = None;
        worker.after(60).await;
        assert_eq!((values(&worker), gaps(&worker)), (told, lost), "{lasts} s");
        worker.stop().await;
    }
}

/// The same for one that was read before.
#[tokio::test(start_paused = true)]
async fn one_answer_does_not_make_a_young_shard_gone() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    *worker.streams.unfound.lock().unwrap() = Some(shard(&worker, 0));
    *worker.streams.unlisted.lock().unwrap() = Some(shard(&worker, 0));
    worker.streams.inner.clock().sleep(Duration::from_secs(HOUR));
    write(&worker, 2);
    worker.after(30).await;
    *worker.streams.unfound.lock().unwrap() = None;
    *worker.streams.unlisted.lock().unwrap() = None;
    worker.after(60).await;
    assert_eq!((values(&worker), gaps(&worker)), (vec![1, 2], 0));
}

/// The parent is neither listed nor found at first. It is too young to be gone.
#[tokio::test(start_paused = true)]
async fn a_young_parent_that_is_not_found_is_awaited() {
    let mut worker = table(unrolled());
    write(&worker, 1);
    worker.after(60).await;
    worker.streams.with(|model| model.roll(0));
    write(&worker, 2);
    *worker.streams.unfound.lock().unwrap() = Some(shard(&worker, 0));
    *worker.streams.unlisted.lock().unwrap() = Some(shard(&worker, 0));
    worker.start_with(follow);
    worker.after(4).await;
    *worker.streams.unfound.lock().unwrap() = None;
    *worker.streams.unlisted.lock().unwrap() = None;
    worker.until("the last", || values(&worker).last() == Some(&2)).await;
    assert_eq!((values(&worker), gaps(&worker)), (vec![1, 2], 0));
}

/// The gateway refuses everybody from the first change on, so that nothing is settled for ten hours.
#[tokio::test(start_paused = true)]
async fn a_gap_is_as_long_as_it_was_where_nothing_was_settled_for_long() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    worker.started().await;
    worker.gateway.everyone(0, 403);
    for value in 1..=10 {
        write(&worker, value);
        worker.after(HOUR).await;
    }
    worker.streams.inner.clock().sleep(Duration::from_secs(25 * HOUR));
    worker.until("it is told", || gaps(&worker) == 1).await;
    let lost = metric(&worker, "data_gap_seconds_total");
    assert!((3_500.0..3_700.0).contains(&lost), "an hour, not {lost} s");
}

/// One call a second, for 200 shards.
#[tokio::test(start_paused = true)]
async fn a_budget_that_is_too_small_for_its_shards_is_not_ready() {
    let mut worker = table(Settings { shards: 200, ..unrolled() });
    worker.start_with(|job| WorkerConfig {
        stream_limits: Arc::new(StreamRateLimits::new(1)),
        ..follow(job)
    });
    worker.started().await;
    worker.after(600).await;
    assert!(worker.reasons().contains(&"ShardBlocked"));
}

/// Reading is refused while all shards are quiet; then each has a page, and the gateway refuses.
#[tokio::test(start_paused = true)]
async fn what_is_read_ahead_after_an_outage_does_not_grow_with_the_shards() {
    let mut worker = table(Settings { shards: 64, ..unrolled() });
    worker.start_with(follow);
    worker.started().await;
    worker.after(60).await;
    refuse(&worker, Call::Records, StreamErrorKind::AccessDenied);
    worker.gateway.everyone(1, 403);
    worker.after(60).await;
    for value in 1..4 {
        for item in 0..20_000 {
            let key = Key::target(&format!("i{item}"), "hoge");
            worker.streams.with(|model| model.write(&key, Some(value)));
        }
    }
    worker.streams.inner.faults(|_, _| None);
    worker.after(600).await;
    let read = worker.streams.handed_out.load(Ordering::Relaxed);
    let bounds = DeliveryLimits::default();
    let most = stream_notifier::worker::MAX_PAGES * 1000 + bounds.memory_kib as usize;
    assert!(read <= most, "{read} of 60,000 records are read and not settled");
}

/// Its stream can be read for a day.
#[tokio::test(start_paused = true)]
async fn what_a_table_left_that_is_deleted_is_read() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    worker.started().await;
    worker.stop().await;
    write(&worker, 1);
    worker.streams.with(|model| model.roll(0));
    write(&worker, 2);
    worker.streams.with(Model::disable);
    refuse(&worker, Call::Streams, StreamErrorKind::NotFound);
    worker.start_with(follow);
    worker.after(60).await;
    assert_eq!(values(&worker), [1, 2], "{:?}", worker.reasons());
    assert_eq!(worker.reasons(), ["StreamDisabled"]);
}

/// Neither the child nor, for a while, its parent is listed.
#[tokio::test(start_paused = true)]
async fn a_child_that_is_missing_is_told_though_its_parent_was_missing_too() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    worker.started().await;
    worker.streams.with(|model| {
        model.settings.inconsistency.late = 1.0;
        model.settings.inconsistency.late_ms = 1_000 * HOUR * 1_000;
        model.roll(0);
    });
    write(&worker, 1);
    worker.after(10).await;
    *worker.streams.unlisted.lock().unwrap() = Some(shard(&worker, 0));
    worker.after(60).await;
    *worker.streams.unlisted.lock().unwrap() = None;
    worker.after(600).await;
    assert_eq!(worker.reasons(), ["NoChildShard"]);
}

/// A stream is enabled, and shows no shard for ten minutes.
#[tokio::test(start_paused = true)]
async fn a_stream_without_a_shard_is_not_ready() {
    let mut worker = table(unrolled());
    *worker.streams.unlisted.lock().unwrap() = Some(shard(&worker, 0));
    worker.start_with(follow);
    write(&worker, 1);
    worker.after(600).await;
    assert_eq!(worker.reasons(), ["NoShards"]);
    *worker.streams.unlisted.lock().unwrap() = None;
    worker.until("it is read", || values(&worker) == [1]).await;
    assert_eq!(worker.reasons(), [""; 0]);
}

/// A page without records comes before one that has some, and nothing is read for ten hours after it.
#[tokio::test(start_paused = true)]
async fn a_page_without_records_does_not_tell_that_there_are_none() {
    let mut worker = table(unrolled());
    write(&worker, 1);
    refuse(&worker, Call::Records, StreamErrorKind::AccessDenied);
    worker.start_with(follow);
    worker.after(20 * HOUR).await;
    worker.streams.with(|model| model.settings.empty_page = 1.0);
    worker.streams.inner.faults(|_, _| None);
    worker.after(10).await;
    refuse(&worker, Call::Records, StreamErrorKind::AccessDenied);
    worker.streams.with(|model| model.settings.empty_page = 0.0);
    worker.after(10 * HOUR).await;
    write(&worker, 2);
    worker.streams.inner.faults(|_, _| None);
    worker.until("the second", || values(&worker) == [2]).await;
    assert_eq!(gaps(&worker), 1);
}

/// What is left after a gap cannot be read for 15 hours, and some of that is lost, too.
#[tokio::test(start_paused = true)]
async fn what_is_lost_after_a_gap_before_it_is_read_is_told_too() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.stop().await;
    write(&worker, 2);
    worker.after(10 * HOUR).await;
    write(&worker, 3);
    worker.after(15 * HOUR).await;
    refuse(&worker, Call::Records, StreamErrorKind::AccessDenied);
    worker.start_with(follow);
    worker.after(15 * HOUR).await;
    assert_eq!(gaps(&worker), 1);
    write(&worker, 4);
    worker.streams.inner.faults(|_, _| None);
    worker.until("the last", || values(&worker) == [1, 4]).await;
    assert_eq!(gaps(&worker), 2);
    let lost = metric(&worker, "data_gap_seconds_total");
    assert!((16.0 * 3_600.0 - lost).abs() < 100.0, "16 hours, not {lost} s");
}

/// There were more finished shards than a checkpoint holds, so that most of their entries went. Then a
/// listing lacks one of those that come one after the other, so that it is not known what is before it.
#[tokio::test(start_paused = true)]
async fn a_listing_that_lacks_a_shard_has_nothing_read_again_after_a_restart() {
    let poll_interval = Duration::from_secs(10);
    let follow = |job| polling(poll_interval, follow(job));
    let mut worker = table(Settings { shards: 1500, ..unrolled() });
    for round in 0..4 {
        worker.after(HOUR).await;
        write(&worker, round + 1);
        let shards = round as usize * 1500..(round as usize + 1) * 1500;
        worker.streams.with(|model| shards.for_each(|shard| model.roll(shard)));
    }
    write(&worker, 5);
    worker.start_with(follow);
    worker.until("all are told", || values(&worker) == [1, 2, 3, 4, 5]).await;
    worker.after(300).await;
    worker.stop().await;
    let line: Vec<_> = worker.streams.with(|model| {
        let last = model.records().last().unwrap().shard;
        std::iter::once(last).chain(model.ancestors(last)).collect()
    });
    for hidden in line {
        *worker.streams.unlisted.lock().unwrap() = Some(shard(&worker, hidden));
        worker.start_with(follow);
        worker.after(20).await;
        *worker.streams.unlisted.lock().unwrap() = None;
        worker.after(60).await;
        assert_eq!((values(&worker), gaps(&worker)), (vec![1, 2, 3, 4, 5], 0), "{hidden}");
        worker.stop().await;
    }
}

/// This call fails so from now on.
fn refuse(worker: &Worker<Twisted>, refused: Call, kind: StreamErrorKind) {
    worker.streams.inner.faults(move |call, moment| {
        ((call, moment) == (refused, Moment::Before)).then_some(Fault::Fails(kind))
    });
}
