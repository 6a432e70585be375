//! A worker among scripted neighbours.

use std::sync::Arc;
use std::time::Duration;

use stream_notifier::api::{StreamNotifier, StreamNotifierSpec};
use stream_notifier::delivery::{DeadLetterQueue, PostRateLimiter};
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

use super::{FakeConnections, FakeGateway, FakeStreams, MemoryStore};

/// The stream that the scripted worker reads.
pub const STREAM: &str =
    "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev/stream/2024-12-03T08:06:15.779";

/// A worker, and who it talks to.
#[derive(Debug)]
pub struct Worker<S = FakeStreams> {
    /// The stream.
    pub streams: Arc<S>,
    /// The connections table.
    pub connections: Arc<FakeConnections>,
    /// The WebSocket API.
    pub gateway: Arc<FakeGateway>,
    /// The checkpoint.
    pub store: Arc<MemoryStore>,
    /// The dead-letter queue, if there is one.
    pub dead_letters: Option<Arc<dyn DeadLetterQueue>>,
    /// The metrics it counts into.
    pub metrics: Metrics,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    pictures: watch::Receiver<HealthSnapshot>,
}

impl Worker {
    /// A worker that does not run yet, and its neighbours: an empty stream with 1,000 records on a
    /// page, an empty table with 1,000 rows on a page.
    pub fn new() -> Self {
        Self::with_pages(1000, 1000)
    }

    /// The same with pages of other sizes.
    pub fn with_pages(records: usize, rows: usize) -> Self {
        let mut worker = Self::on(Arc::new(FakeStreams::new(records)));
        worker.connections = Arc::new(FakeConnections::new(rows));
        worker
    }
}

impl<S: Streams> Worker<S> {
    /// A worker on these streams that does not run yet.
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

    /// Starts it.
    pub fn start(&mut self, holder: &str, begin: InitialPosition) {
        self.start_with(|job| WorkerConfig {
            holder: holder.to_owned(),
            initial_position: begin,
            ..job
        });
    }

    /// Starts it with a job that is another than the usual one.
    pub fn start_with(&mut self, change: impl FnOnce(WorkerConfig) -> WorkerConfig) {
        let backends = Backends {
            streams: self.streams.clone(),
            connections: self.connections.clone(),
            gateway: self.gateway.clone(),
            checkpoints: self.store.clone(),
            dead_letters: self.dead_letters.clone(),
        };
        let (job, pictures) = job("holder", InitialPosition::Latest, &self.metrics);
        let job = change(job);
        let stop = CancellationToken::new();
        let told = stop.clone();
        let task = tokio::spawn(async move { run_worker(&backends, &job, &told).await });
        self.running = Some(Running { stop, task, pictures });
    }

    /// What it says of itself.
    pub fn picture(&self) -> HealthSnapshot {
        self.running.as_ref().expect("it runs").pictures.borrow().clone()
    }

    /// The reasons of its troubles.
    pub fn reasons(&self) -> Vec<&'static str> {
        self.picture().problems.values().map(|trouble| trouble.reason.as_str()).collect()
    }

    /// The reasons of what should be mended although every change goes out.
    pub fn warnings(&self) -> Vec<&'static str> {
        self.picture().warnings.values().map(|warning| warning.reason.as_str()).collect()
    }

    /// Waits until every open shard has answered.
    pub async fn started(&self) {
        self.until("it has started", || self.picture().phase == Phase::Reading).await;
    }

    /// Waits, for an hour of its clock at the most. On a paused clock time passes only while every
    /// task waits, so that a short wait sees all that can happen at this moment.
    pub async fn until(&self, what: &str, mut condition: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < Duration::from_secs(3600), "{what}: not within an hour");
            sleep(Duration::from_millis(5)).await;
        }
    }

    /// Lets time pass.
    pub async fn after(&self, seconds: u64) {
        sleep(Duration::from_secs(seconds)).await;
    }

    /// Stops it as SIGTERM does.
    pub async fn stop(&mut self) {
        let running = self.running.take().expect("it runs");
        running.stop.cancel();
        running.task.await.expect("it does not panic");
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) {
        self.running.take().expect("it runs").task.await.expect("it does not panic");
    }

    /// Ends it as SIGKILL does: in the middle of whatever it does.
    pub async fn kill(&mut self) {
        let running = self.running.take().expect("it runs");
        running.task.abort();
        let _ = running.task.await;
    }
}

impl Default for Worker {
    fn default() -> Self {
        Self::new()
    }
}

/// The job of the scripted worker, and what it will say of its health.
pub fn job(
    holder: &str,
    begin: InitialPosition,
    metrics: &Metrics,
) -> (WorkerConfig, watch::Receiver<HealthSnapshot>) {
    let (health, pictures) = Health::new();
    let spec = worker_spec(&spec());
    let telemetry = NotifierTelemetry::new(metrics.clone(), "test", "notifier");
    let job = WorkerConfig {
        rules: spec.rules,
        evaluators: EvaluatorPool::Inline,
        consumer: spec.consumer,
        initial_position: begin,
        delivery: spec.delivery,
        holder: holder.to_owned(),
        stream_limits: Arc::new(StreamRateLimits::new(1000)),
        post_limiter: Arc::new(PostRateLimiter::new(1_000_000)),
        health: Arc::new(health),
        telemetry,
        rng: Arc::new(JitterRng::seeded(1)),
    };
    (job, pictures)
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
