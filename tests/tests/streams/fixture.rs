//! Workers and helpers that the modules of this suite share.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use jiff::Timestamp;
use stream_notifier::checkpoint::{Checkpoint, StartKind, StartPoint};
use stream_notifier::model::{Position, StreamLabel};
use stream_notifier::streams::{InitialPosition, StreamErrorKind, StreamSource, Streams};
use stream_notifier::worker::WorkerConfig;
use stream_notifier_tests::fakes::{NOW, STREAM, Worker, shard_id};
use stream_notifier_tests::streams_model::{
    Clock, Fault, FaultTiming, Key, Model, ModelStreams, Request, Settings,
};

use super::overridden_streams::OverriddenStreams;

/// The service time at the start of each test, in milliseconds: 2026-11-22T10:00:00.123Z.
pub const BEGIN: u64 = 1_795_341_600_123;

/// An hour in seconds.
pub const HOUR: u64 = 3600;

/// A worker on scripted streams without shards, not yet started. One connection receives the records
/// of `hoge`.
pub fn fake_worker() -> Worker {
    let worker = Worker::new();
    worker.connections.put("connection", "hoge", "2026-01-01");
    worker
}

/// The same with one open shard, started at `Latest`.
pub async fn started_fake_worker() -> Worker {
    let mut worker = fake_worker();
    worker.streams.open("only", None);
    worker.start("a", InitialPosition::Latest);
    worker.wait_started().await;
    worker
}

/// Stores the checkpoint of an earlier worker on the scripted streams.
pub fn store_checkpoint(worker: &Worker, shards: &[(&str, Position)]) {
    let at = "2026-09-20T00:00:00Z".parse().unwrap();
    let start = StartPoint { stream: STREAM.to_owned(), kind: StartKind::TrimHorizon, at };
    let shards = shards.iter().map(|(shard, position)| (shard_id(shard), position.clone()));
    let holder = "before".to_owned();
    let read_at = Timestamp::from_second(NOW.0).unwrap();
    worker.store.write(&Checkpoint { holder, epoch: 3, start, read_at, shards: shards.collect() });
}

/// A worker on a simulated table with one item, not yet started. One connection receives its records.
pub fn model_worker(settings: Settings) -> Worker<OverriddenStreams> {
    let clock = Clock::starting_at(BEGIN);
    let model = Arc::new(Mutex::new(Model::new(settings, Rng::with_seed(1), BEGIN)));
    let worker = Worker::on(Arc::new(OverriddenStreams::new(ModelStreams::new(model, clock))));
    worker.connections.put("connection", "hoge", "2026-01-01");
    write_value(&worker, 0);
    worker
}

/// A worker on a simulated table that was stopped after it had read every open shard once.
pub async fn stopped_after_start(settings: Settings) -> Worker<OverriddenStreams> {
    let mut worker = model_worker(settings);
    worker.start_and_wait(read_table).await;
    worker.stop().await;
    worker
}

/// One shard, which rolls about every 4 hours.
pub fn one_shard() -> Settings {
    Settings { shards: 1, ..Settings::default() }
}

/// One shard, which rolls only if a test rolls it.
pub fn one_open_shard() -> Settings {
    Settings { roll_ms: None, ..one_shard() }
}

/// Sets the value of the item. The first write inserts it, which the filter skips.
pub fn write_value(worker: &Worker<OverriddenStreams>, value: u64) {
    worker.streams.with(|model| model.write(&Key::target("fuga", "hoge"), Some(value)));
}

/// Disables the stream and enables its successor, with a minute after each.
pub async fn replace_stream(worker: &Worker<OverriddenStreams>) {
    worker.streams.with(Model::disable);
    worker.sleep_seconds(60).await;
    worker.streams.with(Model::enable);
    worker.sleep_seconds(60).await;
}

/// The label of the latest stream.
pub fn latest_label(worker: &Worker<OverriddenStreams>) -> String {
    worker.streams.with(|model| model.list_streams().unwrap().pop().unwrap())
}

/// The name of a shard. Indexes are in the order of creation.
pub fn shard_name(worker: &Worker<OverriddenStreams>, index: usize) -> String {
    worker.streams.with(|model| model.shards()[index].id.clone())
}

/// Lets the machine sleep. The local clock stands still during this time.
pub fn suspend_machine(worker: &Worker<OverriddenStreams>, seconds: u64) {
    worker.streams.inner.clock().sleep(Duration::from_secs(seconds));
}

/// Lets every request of an operation fail from now on.
pub fn fail_requests(
    worker: &Worker<OverriddenStreams>,
    operation: Request,
    kind: StreamErrorKind,
) {
    worker.streams.inner.set_faults(move |request, moment| {
        ((request, moment) == (operation, FaultTiming::Before)).then_some(Fault::Fails(kind))
    });
}

/// Lets only the next request of an operation fail.
pub fn fail_first_request(worker: &Worker<OverriddenStreams>, operation: Request, fault: Fault) {
    let mut is_first = true;
    worker.streams.inner.set_faults(move |request, moment| {
        let fails = (request, moment) == (operation, FaultTiming::Before);
        (fails && std::mem::take(&mut is_first)).then_some(fault)
    });
}

/// Lets no request fail from now on.
pub fn clear_faults(worker: &Worker<OverriddenStreams>) {
    worker.streams.inner.set_faults(|_, _| None);
}

/// Configures a worker to read all streams of the table from the trim horizon.
pub fn read_table(config: WorkerConfig) -> WorkerConfig {
    read_table_from(InitialPosition::TrimHorizon)(config)
}

/// Configures a worker to read all streams of the table from this position.
pub fn read_table_from(position: InitialPosition) -> impl Fn(WorkerConfig) -> WorkerConfig {
    move |config| read(StreamSource::Table, position, config)
}

/// Configures a worker to read only the stream that is the latest now.
pub fn read_current_stream(
    worker: &Worker<OverriddenStreams>,
) -> impl Fn(WorkerConfig) -> WorkerConfig + use<> {
    let label = StreamLabel::new(&latest_label(worker));
    move |config| read(StreamSource::Stream(label.clone()), InitialPosition::TrimHorizon, config)
}

fn read(
    source: StreamSource,
    initial_position: InitialPosition,
    config: WorkerConfig,
) -> WorkerConfig {
    let mut config = WorkerConfig { initial_position, ..config };
    config.consumer.table =
        "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev".to_owned();
    config.consumer.source = source;
    config
}

/// Configures a worker with another poll interval.
pub fn poll_every(
    seconds: u64,
    edit: impl Fn(WorkerConfig) -> WorkerConfig,
) -> impl Fn(WorkerConfig) -> WorkerConfig {
    move |config| {
        let mut config = edit(config);
        config.consumer.poll_interval = Duration::from_secs(seconds);
        config
    }
}

/// Configures a worker to halt on a data gap.
pub fn stop_on_gap(
    edit: impl Fn(WorkerConfig) -> WorkerConfig,
) -> impl Fn(WorkerConfig) -> WorkerConfig {
    move |config| {
        let mut config = edit(config);
        config.consumer.stop_on_gap = true;
        config
    }
}

/// The values that the connection has received, in order.
pub fn received_values<S: Streams>(worker: &Worker<S>) -> Vec<u32> {
    let value = |message: String| {
        let message: serde_json::Value = serde_json::from_str(&message).unwrap();
        message["value"].as_str().unwrap().parse().unwrap()
    };
    worker.gateway.received("connection").into_iter().map(value).collect()
}

/// The number of data gaps in the health of the worker.
pub fn gap_count(worker: &Worker<OverriddenStreams>) -> u64 {
    worker.health().gap.map_or(0, |gap| gap.count)
}

/// The value of a metric that is not integral.
pub fn float_metric(worker: &Worker<OverriddenStreams>, name: &str) -> f64 {
    let (text, start) = (worker.metrics.encode(), format!("stream_notifier_{name}{{"));
    let line = text.lines().find(|line| line.starts_with(&start));
    let line = line.unwrap_or_else(|| panic!("metrics must contain {name}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// The number of DescribeStream requests until now, with every result.
pub fn describe_stream_requests(worker: &Worker<OverriddenStreams>) -> f64 {
    let text = worker.metrics.encode();
    let is_describe =
        |line: &&str| line.contains("stream_requests_total{") && line.contains("describe_stream");
    let values = text.lines().filter(is_describe).map(|line| line.rsplit(' ').next().unwrap());
    values.map(|value| value.parse::<f64>().unwrap()).sum()
}
