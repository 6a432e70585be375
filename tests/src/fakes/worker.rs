//! Runs a real worker on fakes, and waits for its effects on tokio's paused clock.

use std::sync::Arc;
use std::time::Duration;

use stream_notifier::api::{StreamNotifier, StreamNotifierSpec};
use stream_notifier::delivery::{DeadLetterQueue, PostRateLimiter};
use stream_notifier::model::Position;
use stream_notifier::rules::EvaluatorPool;
use stream_notifier::streams::{InitialPosition, StreamRateLimits, Streams};
use stream_notifier::telemetry::{Health, HealthSnapshot, Metrics, NotifierTelemetry, Phase};
use stream_notifier::timing::JitterRng;
use stream_notifier::worker::{
    Backends, Endpoints, Validated, WorkerConfig, WorkerSpec, run_worker, validate,
};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::{FakeConnections, FakeGateway, FakeStreams, MemoryStore, sequence_number, shard_id};

/// The stream that the scripted worker reads.
pub const STREAM: &str =
    "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev/stream/2024-12-03T08:06:15.779";

/// A worker and the fakes that it uses.
#[derive(Debug)]
pub struct Worker<S = FakeStreams> {
    pub streams: Arc<S>,
    pub connections: Arc<FakeConnections>,
    pub gateway: Arc<FakeGateway>,
    pub store: Arc<MemoryStore>,
    pub dead_letters: Option<Arc<dyn DeadLetterQueue>>,
    pub metrics: Metrics,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    health: watch::Receiver<HealthSnapshot>,
}

impl Worker {
    /// A stopped worker with an empty stream (1,000 records per page) and an empty table (1,000
    /// rows per page).
    pub fn new() -> Self {
        Self::with_pages(1000, 1000)
    }

    /// A stopped worker as [`Worker::new`] makes it, with other page sizes.
    pub fn with_pages(records: usize, rows: usize) -> Self {
        let mut worker = Self::on(Arc::new(FakeStreams::new(records)));
        worker.connections = Arc::new(FakeConnections::new(rows));
        worker
    }
}

impl<S: Streams> Worker<S> {
    /// A stopped worker that reads `streams`.
    pub fn on(streams: Arc<S>) -> Self {
        Self {
            streams,
            connections: Arc::new(FakeConnections::new(1000)),
            gateway: Arc::default(),
            store: Arc::default(),
            dead_letters: None,
            metrics: Metrics::default(),
            running: None,
        }
    }

    pub fn start(&mut self, holder: &str, initial_position: InitialPosition) {
        self.start_with(|config| WorkerConfig {
            holder: holder.to_owned(),
            initial_position,
            ..config
        });
    }

    /// Starts the worker with the configuration that `edit` returns.
    pub fn start_with(&mut self, edit: impl FnOnce(WorkerConfig) -> WorkerConfig) {
        let backends = Backends {
            streams: self.streams.clone(),
            connections: self.connections.clone(),
            gateway: self.gateway.clone(),
            checkpoints: self.store.clone(),
            dead_letters: self.dead_letters.clone(),
        };
        let (config, health) = worker_config("holder", InitialPosition::Latest, &self.metrics);
        let config = edit(config);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let task = tokio::spawn(async move { run_worker(&backends, &config, &stopped).await });
        self.running = Some(Running { stop, task, health });
    }

    /// Starts the worker with an edited configuration and waits until it has read every open shard
    /// once.
    pub async fn start_and_wait(&mut self, edit: impl FnOnce(WorkerConfig) -> WorkerConfig) {
        self.start_with(edit);
        self.wait_started().await;
    }

    /// The health that it reports.
    pub fn health(&self) -> HealthSnapshot {
        self.running.as_ref().expect("the worker must run").health.borrow().clone()
    }

    /// The reasons of its problems.
    pub fn problem_reasons(&self) -> Vec<&'static str> {
        self.health().problems.values().map(|problem| problem.reason.as_str()).collect()
    }

    /// The reasons of its warnings. Delivery continues despite a warning.
    pub fn warning_reasons(&self) -> Vec<&'static str> {
        self.health().warnings.values().map(|warning| warning.reason.as_str()).collect()
    }

    /// The position of a shard in the stored checkpoint.
    pub fn settled_position(&self, shard: &str) -> Option<Position> {
        self.store.checkpoint()?.shards.get(&shard_id(shard)).cloned()
    }

    /// Whether the stored checkpoint of a shard is exactly at record `n`.
    pub fn is_settled(&self, shard: &str, n: u32) -> bool {
        self.settled_position(shard) == Some(Position::After(sequence_number(n)))
    }

    /// Waits until the stored checkpoint of a shard is exactly at record `n`.
    pub async fn wait_settled(&self, shard: &str, n: u32) {
        self.wait_until(&format!("record {n} of {shard} is settled"), || self.is_settled(shard, n))
            .await;
    }

    /// The value of a counter or gauge with an integral value. `name` is without the prefix
    /// `stream_notifier_`; `labels` are those besides `namespace` and `name`, in any order. A
    /// series exists from the start of the worker, so a missing one is an error in the test.
    pub fn metric_value(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        metric_value(&self.metrics, name, labels)
    }

    /// Waits until it has read every open shard once.
    pub async fn wait_started(&self) {
        self.wait_until("the worker reads", || self.health().phase == Phase::Reading).await;
    }

    /// Waits until `condition` holds, for up to one hour of the paused clock. Time advances only
    /// while every task waits, so a short wait covers everything that can happen at this moment.
    pub async fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let started = Instant::now();
        while !condition() {
            assert!(started.elapsed() < Duration::from_secs(3600), "timed out after 1 h: {what}");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Advances the paused clock.
    pub async fn sleep_seconds(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    /// Stops the worker as SIGTERM does, and waits for its exit.
    pub async fn stop(&mut self) {
        let running = self.running.take().expect("the worker must run");
        running.stop.cancel();
        running.task.await.expect("the worker must not panic");
    }

    /// Waits until the worker exits without a stop.
    pub async fn wait_exit(&mut self) {
        let running = self.running.take().expect("the worker must run");
        running.task.await.expect("the worker must not panic");
    }

    /// Aborts the worker at its next await point, as SIGKILL does.
    pub async fn kill(&mut self) {
        let running = self.running.take().expect("the worker must run");
        running.task.abort();
        let _ = running.task.await;
    }
}

/// The value of a counter or gauge with an integral value, as [`Worker::metric_value`] reads it.
pub fn metric_value(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> u64 {
    let (text, start) = (metrics.encode(), format!("stream_notifier_{name}{{"));
    let has_label = |line: &str, (label, value): &(&str, &str)| {
        let pair = format!("{label}=\"{value}\"");
        line.contains(&format!("{{{pair}")) || line.contains(&format!(",{pair}"))
    };
    let line = text
        .lines()
        .find(|line| line.starts_with(&start) && labels.iter().all(|label| has_label(line, label)));
    let line = line.unwrap_or_else(|| panic!("metrics must contain {name} with {labels:?}"));
    let (_, value) = line.rsplit_once(' ').expect("a series has a value");
    value.parse().unwrap_or_else(|_| panic!("{name} must be integral, not {value}"))
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

/// The configuration of the worker on fakes, and the health that it will report.
pub fn worker_config(
    holder: &str,
    initial_position: InitialPosition,
    metrics: &Metrics,
) -> (WorkerConfig, watch::Receiver<HealthSnapshot>) {
    let (health, reported) = Health::new();
    let spec = worker_spec(&spec());
    let telemetry = NotifierTelemetry::new(metrics.clone(), "test", "notifier");
    let config = WorkerConfig {
        rules: spec.rules,
        evaluators: EvaluatorPool::Inline,
        consumer: spec.consumer,
        initial_position,
        delivery: spec.delivery,
        holder: holder.to_owned(),
        stream_limits: Arc::new(StreamRateLimits::new(1000)),
        post_limiter: Arc::new(PostRateLimiter::new(1_000_000)),
        health: Arc::new(health),
        telemetry,
        rng: Arc::new(JitterRng::seeded(1)),
    };
    (config, reported)
}

/// A valid spec, in the terms of the worker.
pub fn worker_spec(spec: &StreamNotifierSpec) -> WorkerSpec {
    let endpoints = Endpoints { allowed: vec![], template: None };
    match validate(spec, &endpoints) {
        Ok(Validated::Active(spec)) => *spec,
        other => panic!("the spec is not valid, or suspended: {other:?}"),
    }
}

/// The spec of `examples/target-attribute.yaml`, on the scripted stream.
pub fn spec() -> StreamNotifierSpec {
    let text = include_str!("../../../examples/target-attribute.yaml");
    let notifier: StreamNotifier = serde_saphyr::from_str(text).expect("the example parses");
    StreamNotifierSpec { stream_arn: Some(STREAM.to_owned()), ..notifier.spec }
}
