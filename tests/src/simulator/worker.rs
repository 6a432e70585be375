//! Runs a real worker as one simulated process, between simulated backends.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use stream_notifier::api::{StreamNotifier, StreamNotifierSpec};
use stream_notifier::delivery::{
    ConnectionsConfig, DeadLetterQueue, DeliveryConfig, PostRateLimiter,
};
use stream_notifier::model::StreamLabel;
use stream_notifier::rules::{CompiledSpec, EvaluatorPool};
use stream_notifier::streams::{ConsumerConfig, InitialPosition, StreamRateLimits, StreamSource};
use stream_notifier::telemetry::{Health, HealthSnapshot, Metrics, NotifierTelemetry, Phase};
use stream_notifier::timing::JitterRng;
use stream_notifier::worker::{Backends, WorkerConfig, run_worker};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::boundary::Boundary;
use super::config::{ScenarioConfig, StartPosition};
use super::worker_process::WorkerProcess;
use super::world::{EPOCH_MS, World};

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev";

/// A worker that runs, or has ended.
#[derive(Debug)]
pub struct Worker {
    pub process: Arc<WorkerProcess>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    health: watch::Receiver<HealthSnapshot>,
}

impl Worker {
    pub fn start(
        world: &Arc<World>,
        config: &ScenarioConfig,
        stop_on_gap: bool,
        seed: u64,
        metrics: &Metrics,
    ) -> Self {
        let number = world.with(|model, state| {
            let number = state.history.start_process(model.now(), stop_on_gap);
            state.trace_line(model, || format!("worker-{number} starts"));
            number
        });
        let process = Arc::new(WorkerProcess::new(number));
        let boundary = Arc::new(Boundary::new(world.clone(), process.clone()));
        let queue = config.has_queue.then(|| boundary.clone() as Arc<dyn DeadLetterQueue>);
        let backends = Backends {
            streams: boundary.clone(),
            connections: boundary.clone(),
            gateway: boundary.clone(),
            checkpoints: boundary,
            dead_letters: queue,
        };
        let (health, snapshots) = Health::new();
        let telemetry = NotifierTelemetry::new(metrics.clone(), "simulation", &process.holder());
        let worker_config =
            worker_config(world, config, stop_on_gap, &process, health, telemetry, seed);
        let stop = CancellationToken::new();
        let (stopped, running) = (stop.clone(), process.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = running.wait_ended() => {}
                () = run_worker(&backends, &worker_config, &stopped) => {}
            }
        });
        Self { process, stop, task, health: snapshots }
    }

    /// Crashes it, as SIGKILL does.
    pub fn kill(&self) {
        self.process.end();
    }

    pub fn pause(&self, world: &World, is_paused: bool) {
        self.process.pause(is_paused);
        world.with(|model, state| {
            state.history.processes[self.process.number].paused_at = model.now();
        });
    }

    /// Stops it, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    pub fn has_ended(&self) -> bool {
        self.process.has_ended() || self.task.is_finished()
    }

    /// Whether it runs, is not paused and is not stopping.
    pub fn is_working(&self) -> bool {
        !self.has_ended() && !self.is_stopping() && !self.process.is_paused()
    }

    pub fn health(&self) -> HealthSnapshot {
        self.health.borrow().clone()
    }

    /// The reasons why it is not ready.
    pub fn unready_reasons(&self) -> Vec<String> {
        let health = self.health();
        let problems = health.problems.values().map(|problem| problem.reason.as_str().to_owned());
        let phase = (health.phase != Phase::Reading).then(|| format!("{:?}", health.phase));
        phase.into_iter().chain(problems).collect()
    }

    /// Waits for its task. Fails if it panicked.
    pub async fn join(self) -> Result<(), String> {
        match self.task.await {
            Err(error) if error.is_panic() => Err(format!("{} panicked", self.process)),
            _ => Ok(()),
        }
    }
}

fn worker_config(
    world: &World,
    config: &ScenarioConfig,
    stop_on_gap: bool,
    process: &WorkerProcess,
    health: Health,
    telemetry: NotifierTelemetry,
    seed: u64,
) -> WorkerConfig {
    // A stream's ARN in the spec is that of the first stream.
    let label = world.with(|model, _| model.streams()[0].label.clone());
    let source = match config.follows_table {
        true => StreamSource::Table,
        false => StreamSource::Stream(StreamLabel::new(&label)),
    };
    let initial_position = match config.initial_position {
        StartPosition::Latest => InitialPosition::Latest,
        StartPosition::TrimHorizon => InitialPosition::TrimHorizon,
        StartPosition::SecondsBefore(seconds) => {
            let at = (EPOCH_MS / 1_000 + 60 - seconds) as i64;
            InitialPosition::AtTimestamp(
                jiff::Timestamp::from_second(at).expect("the time is in range"),
            )
        }
    };
    WorkerConfig {
        rules: rules(),
        evaluators: EvaluatorPool::Inline,
        consumer: ConsumerConfig {
            table: TABLE.to_owned(),
            source,
            required_images: rules().required_images().clone(),
            poll_interval: config.poll_interval,
            max_pages: config.max_pages,
            stop_on_gap,
        },
        initial_position,
        delivery: DeliveryConfig {
            connections: ConnectionsConfig {
                region: "eu-west-1".to_owned(),
                table: "connections".to_owned(),
                index: Some("sk-index".to_owned()),
                partition_key: Some("sk".to_owned()),
                connection_id_attribute: "connection_id".to_owned(),
                ttl_attribute: None,
                cache_ttl: Duration::ZERO,
            },
            endpoint: "https://gateway.simulated/api".to_owned(),
            policy: config.policy,
            limits: config.limits,
        },
        holder: process.holder(),
        stream_limits: Arc::new(StreamRateLimits::new(1_000)),
        post_limiter: Arc::new(PostRateLimiter::new(1_000_000)),
        health: Arc::new(health),
        telemetry,
        rng: Arc::new(JitterRng::seeded(seed)),
    }
}

/// The rules of `examples/target-attribute.yaml`.
fn rules() -> Arc<CompiledSpec> {
    static RULES: OnceLock<Arc<CompiledSpec>> = OnceLock::new();
    let compiled = RULES.get_or_init(|| {
        let text = include_str!("../../../examples/target-attribute.yaml");
        let StreamNotifier { spec, .. } = serde_saphyr::from_str(text).expect("the example parses");
        let spec: StreamNotifierSpec = spec;
        Arc::new(CompiledSpec::new(&spec).expect("the example is valid"))
    });
    compiled.clone()
}

/// The longest time that a stop takes: 20 s for posts in flight, 8 s for the final checkpoint, and
/// the rest for calls that started before.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(40);
