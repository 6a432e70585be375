//! What would keep changes from being told without anybody noticing, or tell of a loss that is none.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use stream_notifier::delivery::{ConnectionsErrorKind, DeliveryLimits};
use stream_notifier::streams::{CallRateLimiter, InitialPosition, StreamErrorKind};
use stream_notifier::telemetry::Phase;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{Call, Worker};
use stream_notifier_tests::streams_model::{
    Call as SimulatedCall, Fault, Key, Model, Moment, Settings,
};

use super::twisted::Twisted;
use super::{
    HOUR, follow, gaps, metric, one_shard, polling, stopping, table, unrolled, values, write,
};

/// The view type is wrong; the user does what the condition says; nothing is read for a day.
#[tokio::test(start_paused = true)]
async fn a_stream_with_the_right_view_after_one_with_a_wrong_one_is_read() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.streams.with(Model::disable);
    worker.after(60).await;
    worker.streams.with(Model::enable);
    let label = worker.streams.with(|model| model.list_streams().unwrap().pop().unwrap());
    *worker.streams.keys_only.lock().unwrap() = Some(label);
    worker.until("it says so", || worker.reasons() == ["ViewTypeMismatch"]).await;
    worker.streams.with(Model::disable);
    worker.after(60).await;
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 2);
    worker.after(HOUR).await;
    assert_eq!(values(&worker), [1, 2], "{:?}", worker.picture());
}

/// The connections table cannot be described for 30 hours; then a partial loss is silent.
#[tokio::test(start_paused = true)]
async fn what_was_lost_while_it_could_not_begin_is_told() {
    let mut worker = table(unrolled());
    worker.after(60).await;
    worker.start_with(|job| WorkerConfig {
        initial_position: InitialPosition::Latest,
        ..follow(job)
    });
    worker.started().await;
    worker.stop().await;
    worker.connections.fail(Some(ConnectionsErrorKind::AccessDenied));
    worker.start_with(follow);
    worker.after(60).await;
    write(&worker, 1);
    worker.after(30 * HOUR).await;
    write(&worker, 2);
    worker.connections.fail(None);
    worker.until("the second", || values(&worker) == [2]).await;
    worker.after(HOUR).await;
    assert!(gaps(&worker) > 0, "value 1 was lost, and nobody is told");
}

/// The parent is not listed any more, but iterators are still given.
#[tokio::test(start_paused = true)]
async fn a_parent_that_is_never_listed_again_is_not_awaited_for_ever() {
    let mut worker = table(unrolled());
    worker.streams.with(|model| model.roll(0));
    let parent = worker.streams.with(|model| model.shards()[0].id.clone());
    *worker.streams.unlisted.lock().unwrap() = Some(parent);
    write(&worker, 1);
    worker.start_with(follow);
    worker.after(10 * 60).await;
    assert_eq!(values(&worker), [1], "{:?}", worker.picture());
}

/// Every listed shard gets an entry, and a ConfigMap holds only so many.
#[tokio::test(start_paused = true)]
async fn a_first_start_with_many_listed_shards_fits_a_config_map() {
    let mut worker = table(Settings { roll_ms: None, shards: 1500, ..Settings::default() });
    for round in 0..4 {
        worker.after(HOUR).await;
        for shard in round * 1500..(round + 1) * 1500 {
            worker.streams.with(|model| model.roll(shard));
        }
    }
    let poll_interval = Duration::from_secs(10);
    worker.start_with(|job| {
        polling(
            poll_interval,
            WorkerConfig { initial_position: InitialPosition::Latest, ..follow(job) },
        )
    });
    worker.started().await;
    worker.after(10).await;
    let most = worker.store.saves().iter().map(|save| save.shards.len()).max().unwrap();
    assert!((5_000..=6_001).contains(&most), "{most} of 7,500");
}

/// A checkpoint of two streams is mended by hand while the worker waits for that.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_mended_is_gone_on_from_with_all_its_streams() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.after(10).await;
    worker.stop().await;
    write(&worker, 2);
    worker.streams.with(Model::disable);
    worker.after(60).await;
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 3);
    let good = worker.store.checkpoint().unwrap();
    worker.store.scribble();
    worker.start_with(follow);
    worker.until("it says so", || worker.reasons() == ["CheckpointInvalid"]).await;
    worker.store.write(&good);
    worker.until("the last", || values(&worker).last() == Some(&3)).await;
    worker.after(HOUR).await;
    assert_eq!((values(&worker), gaps(&worker)), (vec![1, 2, 3], 0), "{:?}", worker.picture());
}

/// Stopped for 20 hours, by a clean stop, after five and a half quiet ones.
#[tokio::test(start_paused = true)]
async fn a_clean_stop_of_less_than_a_day_is_no_gap() {
    let mut worker = table(unrolled());
    worker.after(60).await;
    worker.start_with(|job| WorkerConfig {
        initial_position: InitialPosition::Latest,
        ..follow(job)
    });
    worker.started().await;
    worker.after(5 * HOUR + HOUR / 2).await;
    worker.stop().await;
    worker.after(20 * HOUR).await;
    write(&worker, 1);
    worker.start_with(|job| stopping(follow(job)));
    worker.after(60).await;
    let picture = worker.picture();
    assert!(picture.phase == Phase::Reading && picture.gap.is_none(), "{picture:?}");
}

/// The gateway refuses, and every shard holds a page.
#[tokio::test(start_paused = true)]
async fn what_is_read_ahead_does_not_grow_with_the_shards() {
    let mut worker = table(Settings { roll_ms: None, shards: 64, ..one_shard() });
    for value in 1..4 {
        for item in 0..20_000 {
            let key = Key::target(&format!("i{item}"), "hoge");
            worker.streams.with(|model| model.write(&key, Some(value)));
        }
    }
    worker.gateway.everyone(1, 403);
    worker.start_with(follow);
    worker.after(600).await;
    let read = worker.streams.handed_out.load(Ordering::Relaxed);
    let bounds = DeliveryLimits::default();
    let most = stream_notifier::worker::MAX_PAGES * 1000 + bounds.memory_kib as usize;
    assert!(read <= most, "{read} of 60,000 records are read and not settled");
}

/// One shard that is listed and not found, of 3,000.
#[tokio::test(start_paused = true)]
async fn one_broken_shard_does_not_take_the_whole_budget() {
    let mut worker = Worker::new();
    for n in 0..3000 {
        worker.streams.open(&format!("shard-{n:04}"), None);
    }
    worker.streams.never_find("shard-0007");
    worker.start("holder", InitialPosition::TrimHorizon);
    worker.after(60).await;
    let describes = || {
        let calls = worker.streams.calls();
        calls.iter().filter(|call| matches!(call, Call::Describe(_))).count()
    };
    let before = describes();
    worker.after(120).await;
    let a_second = (describes() - before) as f64 / 120.0;
    assert!(a_second < 2.0, "{a_second} descriptions a second, of 8 for everybody");
}

/// A gauge that goes on after the worker.
#[tokio::test(start_paused = true)]
async fn a_worker_that_stopped_costs_nothing_more() {
    let mut worker = table(one_shard());
    worker.start_with(follow);
    worker.after(120).await;
    assert!(metric(&worker, "get_records_requests_per_month") > 1e6);
    worker.stop().await;
    assert_eq!(metric(&worker, "get_records_requests_per_month").to_bits(), 0.0_f64.to_bits());
}

/// Turns that were reserved by someone who is gone.
#[tokio::test(start_paused = true)]
async fn a_turn_that_is_not_used_is_given_back() {
    let budget = Arc::new(CallRateLimiter::new(8, 2));
    let waiting: Vec<_> = (0..350)
        .map(|_| {
            let budget = budget.clone();
            tokio::spawn(async move { budget.acquire().await })
        })
        .collect();
    tokio::time::sleep(Duration::from_millis(10)).await;
    for task in waiting {
        task.abort();
    }
    let begun = tokio::time::Instant::now();
    budget.acquire().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
}

/// The record at the trim horizon is trimmed between the iterator and the read.
#[tokio::test(start_paused = true)]
async fn a_first_start_at_the_trim_horizon_has_lost_nothing_it_asked_for() {
    let mut worker = table(unrolled());
    let mut is_first = true;
    worker.streams.inner.faults(move |call, moment| {
        let now = call == SimulatedCall::Records
            && moment == Moment::Before
            && std::mem::take(&mut is_first);
        now.then_some(Fault::Fails(StreamErrorKind::Trimmed))
    });
    worker.start_with(|job| stopping(follow(job)));
    worker.after(60).await;
    let picture = worker.picture();
    assert!(picture.phase == Phase::Reading && picture.gap.is_none(), "{picture:?}");
}

/// A closed shard that is listed at the first start of all, with Latest, expires before it is read.
#[tokio::test(start_paused = true)]
async fn a_first_start_at_latest_has_lost_nothing() {
    let mut worker = table(unrolled());
    worker.after(HOUR).await;
    worker.streams.with(|model| model.roll(0));
    worker.after(24 * HOUR - 5).await;
    let mut is_first = true;
    worker.streams.inner.faults(move |call, moment| {
        let now = call == SimulatedCall::Iterator
            && moment == Moment::Before
            && std::mem::take(&mut is_first);
        now.then_some(Fault::Hangs)
    });
    worker.start_with(|job| {
        stopping(WorkerConfig { initial_position: InitialPosition::Latest, ..follow(job) })
    });
    worker.after(120).await;
    let picture = worker.picture();
    assert!(picture.phase == Phase::Reading && picture.gap.is_none(), "{picture:?}");
}

/// The child of the only shard is never listed.
#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_reads_is_not_ready() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    worker.started().await;
    worker.streams.with(|model| model.roll(0));
    let child = worker.streams.with(|model| model.shards()[1].id.clone());
    *worker.streams.unlisted.lock().unwrap() = Some(child);
    write(&worker, 1);
    worker.after(HOUR).await;
    let picture = worker.picture();
    assert_eq!(worker.reasons(), ["NoChildShard"], "{picture:?}");
    *worker.streams.unlisted.lock().unwrap() = None;
    worker.until("it is read", || values(&worker) == [1]).await;
    worker.after(60).await;
    assert_eq!(worker.reasons(), [""; 0]);
}

/// Others list too, and take a third of what may be asked.
#[tokio::test(start_paused = true)]
async fn a_listing_of_many_pages_goes_on_where_one_of_them_was_throttled() {
    let mut worker = table(Settings { shards: 40, shards_on_a_page: 1, ..unrolled() });
    let mut calls = 0;
    worker.streams.inner.faults(move |call, moment| {
        let is_asked = (call, moment) == (SimulatedCall::Describe, Moment::Before);
        calls += u32::from(is_asked);
        (is_asked && calls % 3 == 0).then_some(Fault::Fails(StreamErrorKind::Throttled))
    });
    worker.start_with(follow);
    worker.after(60).await;
    write(&worker, 1);
    worker.after(5).await;
    assert_eq!(values(&worker), [1]);
}

/// One shard is listed late, and by then nothing is listed for a while.
#[tokio::test(start_paused = true)]
async fn a_stream_is_at_its_end_only_once_a_later_listing_says_so() {
    let mut worker = begun(unrolled()).await;
    write(&worker, 1);
    worker.streams.with(|model| model.roll(0));
    write(&worker, 2);
    let child = worker.streams.with(|model| model.shards().last().unwrap().id.clone());
    *worker.streams.unlisted.lock().unwrap() = Some(child);
    worker.streams.with(Model::disable);
    worker.after(60).await;
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 3);
    worker.start_with(follow);
    worker.after(5).await;
    assert_eq!(values(&worker), [1]);
    no_listings(&worker);
    worker.after(60).await;
    assert_eq!(values(&worker), [1], "what comes after the stream is not told yet");
    *worker.streams.unlisted.lock().unwrap() = None;
    worker.streams.inner.faults(|_, _| None);
    worker.until("all are told", || values(&worker).len() == 3).await;
    assert_eq!(values(&worker), [1, 2, 3]);
}

/// The second stream waited for the first one's end, was never begun, and is gone.
#[tokio::test(start_paused = true)]
async fn what_was_listed_and_never_begun_is_told_as_long_as_it_was() {
    let mut worker = begun(unrolled()).await;
    worker.streams.with(Model::disable);
    worker.after(60).await;
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 1);
    worker.after(20 * HOUR).await;
    worker.start_with(follow);
    worker.after(5).await;
    no_listings(&worker);
    worker.streams.with(Model::disable);
    worker.after(30 * HOUR).await;
    worker.streams.inner.faults(|_, _| None);
    worker.until("it is told", || gaps(&worker) > 0).await;
    let lost = metric(&worker, "data_gap_seconds_total");
    assert!((93_500.0..93_800.0).contains(&lost), "26 hours, not {lost} s");
    worker.after(HOUR).await;
    assert_eq!(gaps(&worker), 1, "it is told once");
}

/// One of two shards is in no listing at first, and gone when somebody looks again.
#[tokio::test(start_paused = true)]
async fn a_parent_that_was_never_listed_and_is_gone_is_a_gap() {
    for hides in [false, true] {
        let mut worker =
            table(Settings { shards: 2, roll_ms: Some(4 * HOUR * 1000), ..unrolled() });
        let second = worker.streams.with(|model| model.shards()[1].id.clone());
        *worker.streams.unlisted.lock().unwrap() = hides.then_some(second);
        worker.start_with(follow);
        worker.started().await;
        worker.streams.inner.clock().sleep(Duration::from_secs(29 * HOUR));
        worker.after(HOUR).await;
        assert_eq!(gaps(&worker), 4, "both, and what follows each of them; {hides}");
        assert_eq!(worker.reasons(), [""; 0]);
        worker.stop().await;
    }
}

/// Nothing follows any of its shards, and each answer about one lists all.
#[tokio::test(start_paused = true)]
async fn a_service_that_knows_no_filter_is_not_asked_for_each_shard() {
    let settings = Settings { shards: 40, shards_on_a_page: 1, knows_filter: false, ..unrolled() };
    let mut worker = begun(settings).await;
    worker.streams.with(Model::disable);
    worker.after(60).await;
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 1);
    worker.start_with(follow);
    worker.after(180).await;
    assert_eq!(values(&worker), [1], "the next stream is read");
}

/// A table that a worker has begun to read, which was stopped.
async fn begun(settings: Settings) -> Worker<Twisted> {
    let mut worker = table(settings);
    worker.start_with(follow);
    worker.started().await;
    worker.stop().await;
    worker
}

/// Nobody may describe streams from now on.
fn no_listings(worker: &Worker<Twisted>) {
    worker.streams.inner.faults(|call, moment| {
        let is_refused = (call, moment) == (SimulatedCall::Describe, Moment::Before);
        is_refused.then_some(Fault::Fails(StreamErrorKind::AccessDenied))
    });
}

/// The right to read is gone for an hour.
#[tokio::test(start_paused = true)]
async fn a_shard_that_cannot_be_read_for_an_hour_is_an_hour_behind() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    worker.after(600).await;
    let age = |worker: &Worker<Twisted>| metric(worker, "iterator_age_seconds");
    assert!(age(&worker) < 10.0, "nothing is left to read");
    worker.streams.inner.faults(|call, moment| {
        let is_read = (call, moment) == (SimulatedCall::Records, Moment::Before);
        is_read.then_some(Fault::Fails(StreamErrorKind::AccessDenied))
    });
    worker.after(HOUR).await;
    assert!((3_580.0..=3_610.0).contains(&age(&worker)), "{}", age(&worker));
    worker.streams.inner.faults(|_, _| None);
    worker.after(600).await;
    assert!(age(&worker) < 10.0, "it has caught up");
    worker.stop().await;
    assert!(!worker.metrics.encode().contains("iterator_age_seconds{"), "nobody reads");
}
