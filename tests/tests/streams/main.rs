//! The worker on a simulated table, on a paused clock: streams that follow one another, what the
//! retention takes before it is read, and where reading begins. What hand-written stories leave out
//! is in `simulation.rs`.

mod lags;
mod stalls;
mod twisted;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use stream_notifier::checkpoint::StartKind;
use stream_notifier::model::{Position, StreamLabel};
use stream_notifier::streams::{InitialPosition, StreamSource};
use stream_notifier::telemetry::Phase;
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::Worker;
use stream_notifier_tests::streams_model::{Clock, Key, Model, ModelStreams, Settings};
use twisted::Twisted;

const BEGIN: u64 = 1_795_341_600_123;
const HOUR: u64 = 3600;

/// A table with one stream of one shard, an item, and a connection that is told of it; the worker
/// that reads it does not run yet.
fn table(settings: Settings) -> Worker<Twisted> {
    let clock = Clock::starting_at(BEGIN);
    let model = Arc::new(Mutex::new(Model::new(settings, Rng::with_seed(1), BEGIN)));
    let worker = Worker::on(Arc::new(Twisted::new(ModelStreams::new(model, clock))));
    worker.connections.put("connection", "hoge", "2026-01-01");
    write(&worker, 0);
    worker
}

fn one_shard() -> Settings {
    Settings { shards: 1, ..Settings::default() }
}

/// The same, with a shard that stays open for ever.
fn unrolled() -> Settings {
    Settings { roll_ms: None, ..one_shard() }
}

/// Changes the item to this value; the first time it is made, which nobody is told of.
fn write(worker: &Worker<Twisted>, value: u64) {
    worker.streams.with(|model| model.write(&Key::target("fuga", "hoge"), Some(value)));
}

/// The job of a worker that follows the table, from the start.
fn follow(job: WorkerConfig) -> WorkerConfig {
    let mut job = WorkerConfig { initial_position: InitialPosition::TrimHorizon, ..of_model(job) };
    job.consumer.source = StreamSource::Table;
    job
}

fn of_model(mut job: WorkerConfig) -> WorkerConfig {
    job.consumer.table =
        "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev".to_owned();
    job
}

/// The job with another poll interval.
fn polling(poll_interval: Duration, mut job: WorkerConfig) -> WorkerConfig {
    job.consumer.poll_interval = poll_interval;
    job
}

/// The job that stops on a data gap.
fn stopping(mut job: WorkerConfig) -> WorkerConfig {
    job.consumer.stop_on_gap = true;
    job
}

/// The job of a worker that reads the present stream only.
fn this_stream(worker: &Worker<Twisted>) -> impl Fn(WorkerConfig) -> WorkerConfig + use<> {
    let label = worker.streams.with(|model| model.list_streams().unwrap().pop().unwrap());
    move |job| {
        let mut job =
            WorkerConfig { initial_position: InitialPosition::TrimHorizon, ..of_model(job) };
        job.consumer.source = StreamSource::Stream(StreamLabel::new(&label));
        job
    }
}

fn values(worker: &Worker<Twisted>) -> Vec<u32> {
    let value = |message: String| {
        let message: serde_json::Value = serde_json::from_str(&message).unwrap();
        message["value"].as_str().unwrap().parse().unwrap()
    };
    worker.gateway.received("connection").into_iter().map(value).collect()
}

fn gaps(worker: &Worker<Twisted>) -> u64 {
    worker.picture().gap.map_or(0, |gap| gap.count)
}

/// A figure of the metrics.
fn metric(worker: &Worker<Twisted>, name: &str) -> f64 {
    let text = worker.metrics.encode();
    let line = text.lines().find(|line| line.starts_with(&format!("stream_notifier_{name}{{")));
    line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
}

#[tokio::test(start_paused = true)]
async fn a_disabled_stream_is_drained_and_the_next_one_is_read_from_its_start() {
    let mut worker = table(one_shard());
    write(&worker, 1);
    worker.streams.with(Model::disable);
    worker.after(60).await;
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 2);
    worker.start_with(follow);
    worker.until("only the new one is read at first", || values(&worker) == [2]).await;
    // The other way round: it is being read when it happens.
    write(&worker, 3);
    let before = worker.picture().stream;
    worker.streams.with(Model::disable);
    worker.after(60).await;
    assert_eq!(worker.reasons(), ["StreamDisabled"], "it was read to its end, and waits");
    assert_eq!(values(&worker), [2, 3]);
    worker.streams.with(Model::enable);
    worker.after(30).await;
    write(&worker, 4);
    worker.until("the next one is read", || values(&worker) == [2, 3, 4]).await;
    assert_eq!(worker.reasons(), [""; 0]);
    assert!(worker.picture().stream > before, "{:?}", worker.picture());
    assert_eq!(gaps(&worker), 0);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_came_and_went_while_nobody_read_is_not_forgotten() {
    let mut worker = table(one_shard());
    worker.start_with(follow);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.stop().await;
    for value in [2, 3] {
        write(&worker, value * 10);
        worker.streams.with(Model::disable);
        worker.after(60).await;
        worker.streams.with(Model::enable);
        worker.after(60).await;
        write(&worker, value * 10 + 1);
    }
    worker.start_with(follow);
    worker.until("all are told", || values(&worker).len() == 5).await;
    assert_eq!(values(&worker), [1, 20, 21, 30, 31]);
    let labels = worker.streams.with(|model| model.list_streams().unwrap().len());
    assert_eq!(labels, 3);
}

#[tokio::test(start_paused = true)]
async fn the_stream_of_an_arn_is_drained_and_its_successor_is_named_not_read() {
    let mut worker = table(one_shard());
    let job = this_stream(&worker);
    write(&worker, 1);
    worker.streams.with(Model::disable);
    worker.start_with(&job);
    worker.until("it says so", || worker.reasons() == ["StreamDisabled"]).await;
    assert_eq!(values(&worker), [1]);
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 2);
    worker.after(60).await;
    assert_eq!(worker.reasons(), ["StreamReplaced"]);
    let new = worker.streams.with(|model| model.list_streams().unwrap().pop().unwrap());
    let told = worker.picture().problems.into_values().next().unwrap();
    assert!(told.message.contains(&new), "{told:?}");
    assert!(told.stalled);
    assert_eq!(values(&worker), [1]);
}

#[tokio::test(start_paused = true)]
async fn what_was_trimmed_before_it_was_read_is_told_and_reading_goes_on() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.stop().await;
    write(&worker, 2);
    worker.after(25 * HOUR).await;
    write(&worker, 3);
    worker.start_with(follow);
    worker.until("the last", || values(&worker) == [1, 3]).await;
    assert_eq!((gaps(&worker), metric(&worker, "data_gaps_total")), (1, 1.0));
    let lost = metric(&worker, "data_gap_seconds_total");
    assert!((3500.0..3700.0).contains(&lost), "an hour, not {lost} s");
    worker.stop().await;
    worker.start_with(follow);
    worker.started().await;
    worker.after(60).await;
    assert_eq!(gaps(&worker), 0, "it is over");
}

#[tokio::test(start_paused = true)]
async fn shards_that_vanished_unread_are_a_gap() {
    let mut worker = table(Settings { roll_ms: Some(4 * HOUR * 1000), ..one_shard() });
    worker.start_with(follow);
    worker.started().await;
    worker.stop().await;
    write(&worker, 2);
    worker.after(40 * HOUR).await;
    write(&worker, 3);
    worker.start_with(follow);
    worker.until("the last", || values(&worker) == [3]).await;
    assert!(gaps(&worker) > 0);
    worker.started().await;
    assert_eq!(worker.reasons(), [""; 0]);
}

/// Nothing in a shard that had no record yet tells that something was trimmed.
#[tokio::test(start_paused = true)]
async fn a_shard_without_a_number_that_nobody_read_for_a_day_is_a_gap() {
    for (away, told) in [(17, 0), (25, 1)] {
        let mut worker = table(unrolled());
        worker.after(60).await;
        let poll_interval = Duration::from_secs(60);
        worker.start_with(|job| {
            polling(
                poll_interval,
                WorkerConfig { initial_position: InitialPosition::Latest, ..follow(job) },
            )
        });
        worker.started().await;
        // It is quiet, and that is written down now and then.
        worker.after(50 * HOUR).await;
        assert_eq!(gaps(&worker), 0);
        worker.kill().await;
        write(&worker, 1);
        worker.after(away * HOUR).await;
        worker.start_with(follow);
        worker.started().await;
        worker.after(60).await;
        // Up to six hours more than it was away, by what was written down.
        assert!(gaps(&worker) >= told, "{away} hours");
        assert!(away > 18 || gaps(&worker) == 0, "{away} hours");
        worker.stop().await;
    }
}

/// Our own clock knows nothing of a machine's sleep; what tells is the answers.
#[tokio::test(start_paused = true)]
async fn what_was_lost_while_the_machine_slept_is_told_as_long_as_it_was() {
    for begin in [InitialPosition::TrimHorizon, InitialPosition::Latest] {
        let mut worker = table(unrolled());
        worker.after(60).await;
        worker.start_with(|job| WorkerConfig { initial_position: begin, ..follow(job) });
        worker.started().await;
        worker.after(10).await;
        assert_eq!(gaps(&worker), 0);
        write(&worker, 1);
        worker.streams.inner.clock().sleep(Duration::from_secs(25 * HOUR));
        write(&worker, 2);
        worker.until("the last", || values(&worker) == [2]).await;
        assert_eq!(gaps(&worker), 1, "{begin:?}");
        let lost = metric(&worker, "data_gap_seconds_total");
        assert!((3500.0..3700.0).contains(&lost), "an hour, not {lost} s, {begin:?}");
    }
}

/// Nothing else than that a stream is gone tells the time then.
#[tokio::test(start_paused = true)]
async fn a_gap_is_as_long_as_it_was_where_no_stream_is_left() {
    let mut worker = table(unrolled());
    worker.start_with(follow);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.stop().await;
    write(&worker, 2);
    worker.streams.with(Model::disable);
    worker.after(30 * HOUR).await;
    worker.start_with(follow);
    worker.until("it is told", || gaps(&worker) == 1).await;
    let lost = metric(&worker, "data_gap_seconds_total");
    assert!((21_500.0..21_700.0).contains(&lost), "six hours, not {lost} s");
    worker.after(30 * HOUR).await;
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 3);
    worker.until("the next one is read", || values(&worker) == [1, 3]).await;
    assert_eq!(gaps(&worker), 1, "nothing was lost while there was no stream");
}

#[tokio::test(start_paused = true)]
async fn with_stop_nothing_more_is_read_and_the_checkpoint_stays_before_the_gap() {
    let stop = |job| stopping(follow(job));
    let mut worker = table(unrolled());
    worker.start_with(stop);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.stop().await;
    write(&worker, 2);
    worker.after(25 * HOUR).await;
    write(&worker, 3);
    let before = worker.store.checkpoint().unwrap().shards;
    for _ in 0..2 {
        worker.start_with(stop);
        worker.until("it stops", || worker.picture().phase == Phase::HaltedOnGap).await;
        assert_eq!(gaps(&worker), 1);
        worker.ended().await;
        assert_eq!(worker.store.checkpoint().unwrap().shards, before);
        assert_eq!(values(&worker), [1]);
    }
    worker.start_with(follow);
    worker.until("it goes on", || values(&worker) == [1, 3]).await;
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_begins_there_in_every_shard_whether_the_service_knows_it_or_not() {
    for knows_timestamps in [true, false] {
        let settings = Settings { roll_ms: Some(HOUR * 1000), knows_timestamps, ..one_shard() };
        let mut worker = table(settings);
        for value in 1..6 {
            worker.after(HOUR).await;
            write(&worker, value);
        }
        let at = Timestamp::from_millisecond((BEGIN + 3 * HOUR * 1000) as i64 - 60_000).unwrap();
        worker.start_with(|job| WorkerConfig {
            initial_position: InitialPosition::AtTimestamp(at),
            ..follow(job)
        });
        worker.after(60).await;
        assert_eq!(values(&worker), [3, 4, 5]);
        let start = worker.store.checkpoint().unwrap().start;
        assert_eq!((start.kind, start.at), (StartKind::AtTimestamp, at));
        assert_eq!(gaps(&worker), 0);
        worker.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_timestamp_to_come_skips_what_comes_before_it() {
    let mut worker = table(one_shard());
    let at = Timestamp::from_millisecond((BEGIN + HOUR * 1000) as i64).unwrap();
    worker.start_with(|job| WorkerConfig {
        initial_position: InitialPosition::AtTimestamp(at),
        ..follow(job)
    });
    worker.started().await;
    write(&worker, 1);
    worker.after(2 * HOUR).await;
    write(&worker, 2);
    worker.until("the later one", || values(&worker) == [2]).await;
}

#[tokio::test(start_paused = true)]
async fn an_old_closed_shard_that_is_listed_late_is_not_replayed() {
    let mut worker = table(Settings { roll_ms: Some(HOUR * 1000), ..one_shard() });
    for value in 1..6 {
        worker.after(HOUR).await;
        write(&worker, value);
    }
    worker.after(60).await;
    worker.streams.with(|model| {
        model.settings.inconsistency.late = 1.0;
        model.settings.inconsistency.late_ms = 3 * HOUR * 1000;
    });
    let poll_interval = Duration::from_secs(10);
    worker.start_with(|job| {
        polling(
            poll_interval,
            WorkerConfig { initial_position: InitialPosition::Latest, ..follow(job) },
        )
    });
    worker.after(6 * HOUR).await;
    write(&worker, 6);
    worker.after(4 * HOUR).await;
    assert_eq!(values(&worker), [6]);
}

#[tokio::test(start_paused = true)]
async fn a_table_without_a_stream_waits_for_one() {
    let mut worker = table(one_shard());
    worker.streams.with(Model::disable);
    worker.after(25 * HOUR).await;
    worker.start_with(follow);
    worker.until("it says so", || worker.reasons() == ["StreamDisabled"]).await;
    worker.streams.with(Model::enable);
    worker.after(60).await;
    write(&worker, 1);
    worker.until("it is read", || values(&worker) == [1]).await;
    worker.started().await;
    assert_eq!(worker.reasons(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_another_table_is_not_gone_on_from() {
    let mut worker = table(one_shard());
    worker.start_with(follow);
    write(&worker, 1);
    worker.until("the first", || values(&worker) == [1]).await;
    worker.stop().await;
    let mut other = worker.store.checkpoint().unwrap();
    other.start.stream = other.start.stream.replace("sample-table-dev", "another-table");
    worker.store.write(&other);
    worker.start_with(follow);
    worker.until("it begins afresh", || values(&worker) == [1, 1]).await;
}

/// What `readAt` and the six hours are for: a shard that is never read says nothing by itself.
#[tokio::test(start_paused = true)]
async fn nothing_is_written_while_it_is_quiet_but_the_time_every_six_hours() {
    let mut worker = table(unrolled());
    worker.after(60).await;
    let poll_interval = Duration::from_secs(10);
    worker.start_with(|job| {
        polling(
            poll_interval,
            WorkerConfig { initial_position: InitialPosition::Latest, ..follow(job) },
        )
    });
    worker.started().await;
    worker.after(HOUR).await;
    let before = worker.store.saves().len();
    worker.after(24 * HOUR).await;
    let saves = worker.store.saves();
    assert_eq!(saves.len() - before, 4);
    let latest = |position: &Position| *position == Position::Latest;
    assert!(saves.iter().all(|save| save.shards.values().all(latest)));
}
