//! The real worker, one life of it at a time, among simulated neighbours.

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

use super::boundary::Outside;
use super::config::{Beginning, Plan};
use super::worker_process::Life;
use super::world::{EPOCH_MS, World};

const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev";

/// A worker that runs, or ran.
#[derive(Debug)]
pub struct Worker {
    /// Its life.
    pub life: Arc<Life>,
    stop: CancellationToken,
    task: JoinHandle<()>,
    pictures: watch::Receiver<HealthSnapshot>,
}

impl Worker {
    /// Starts one, in a life of its own.
    pub fn start(
        world: &Arc<World>,
        plan: &Plan,
        stop_on_gap: bool,
        seed: u64,
        metrics: &Metrics,
    ) -> Self {
        let number = world.with(|model, state| {
            let number = state.history.begin_life(model.now(), stop_on_gap);
            state.note(model, || format!("worker-{number} starts"));
            number
        });
        let life = Arc::new(Life::new(number));
        let outside = Arc::new(Outside::new(world.clone(), life.clone()));
        let queue = plan.has_queue.then(|| outside.clone() as Arc<dyn DeadLetterQueue>);
        let backends = Backends {
            streams: outside.clone(),
            connections: outside.clone(),
            gateway: outside.clone(),
            checkpoints: outside,
            dead_letters: queue,
        };
        let (health, pictures) = Health::new();
        let telemetry = NotifierTelemetry::new(metrics.clone(), "simulation", &life.holder());
        let job = job(world, plan, stop_on_gap, &life, health, telemetry, seed);
        let stop = CancellationToken::new();
        let (told, ends) = (stop.clone(), life.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                biased;
                () = ends.until_ended() => {}
                () = run_worker(&backends, &job, &told) => {}
            }
        });
        Self { life, stop, task, pictures }
    }

    /// Ends it as SIGKILL does.
    pub fn kill(&self) {
        self.life.end();
    }

    /// Stops it in its tracks, or lets it go on.
    pub fn pause(&self, world: &World, is_paused: bool) {
        self.life.pause(is_paused);
        world.with(|model, state| {
            let begun = &mut state.history.lives[self.life.number];
            (begun.is_paused, begun.paused_at) = (is_paused, model.now());
        });
    }

    /// Tells it to stop, as SIGTERM does.
    pub fn stop(&self) {
        self.stop.cancel();
    }

    /// Whether it was told to stop.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Whether it has ended, by itself or not.
    pub fn is_over(&self) -> bool {
        self.life.has_ended() || self.task.is_finished()
    }

    /// Whether it is there and does what it can.
    pub fn is_at_work(&self) -> bool {
        !self.is_over() && !self.is_stopping() && !self.life.is_paused()
    }

    /// What it says of itself.
    pub fn picture(&self) -> HealthSnapshot {
        self.pictures.borrow().clone()
    }

    /// What keeps it from being ready, in words; nothing if it is.
    pub fn unready(&self) -> Vec<String> {
        let picture = self.picture();
        let troubles = picture.problems.values().map(|trouble| trouble.reason.as_str().to_owned());
        let phase = (picture.phase != Phase::Reading).then(|| format!("{:?}", picture.phase));
        phase.into_iter().chain(troubles).collect()
    }

    /// Waits for its task; `Err` if it panicked.
    pub async fn joined(self) -> Result<(), String> {
        match self.task.await {
            Err(error) if error.is_panic() => Err(format!("{} panicked", self.life)),
            _ => Ok(()),
        }
    }
}

fn job(
    world: &World,
    plan: &Plan,
    stop_on_gap: bool,
    life: &Life,
    health: Health,
    telemetry: NotifierTelemetry,
    seed: u64,
) -> WorkerConfig {
    // The one stream is the first there was: nobody changes the resource.
    let label = world.with(|model, _| model.streams()[0].label.clone());
    let follow = match plan.follows_table {
        true => StreamSource::Table,
        false => StreamSource::Stream(StreamLabel::new(&label)),
    };
    let begin = match plan.beginning {
        Beginning::Latest => InitialPosition::Latest,
        Beginning::TrimHorizon => InitialPosition::TrimHorizon,
        Beginning::Ago(seconds) => {
            let at = (EPOCH_MS / 1_000 + 60 - seconds) as i64;
            InitialPosition::AtTimestamp(jiff::Timestamp::from_second(at).expect("it is in range"))
        }
    };
    WorkerConfig {
        rules: notifier(),
        evaluators: EvaluatorPool::Inline,
        consumer: ConsumerConfig {
            table: TABLE.to_owned(),
            source: follow,
            required_images: notifier().required_images().clone(),
            poll_interval: plan.poll_interval,
            max_pages: plan.max_pages,
            stop_on_gap,
        },
        initial_position: begin,
        delivery: DeliveryConfig {
            connections: ConnectionsConfig {
                region: "eu-west-1".to_owned(),
                table: "connections".to_owned(),
                index: Some("sk-index".to_owned()),
                partition_key: Some("sk".to_owned()),
                connection_id_attribute: "connection_id".to_owned(),
                ttl_attribute: None,
                cache: Duration::ZERO,
            },
            endpoint: "https://gateway.simulated/api".to_owned(),
            policy: plan.policy,
            limits: plan.bounds,
        },
        holder: life.holder(),
        stream_limits: Arc::new(StreamRateLimits::new(1_000)),
        post_limiter: Arc::new(PostRateLimiter::new(1_000_000)),
        health: Arc::new(health),
        telemetry,
        rng: Arc::new(JitterRng::seeded(seed)),
    }
}

/// The notifier of `examples/target-attribute.yaml`.
fn notifier() -> Arc<CompiledSpec> {
    static NOTIFIER: OnceLock<Arc<CompiledSpec>> = OnceLock::new();
    let compiled = NOTIFIER.get_or_init(|| {
        let text = include_str!("../../../examples/target-attribute.yaml");
        let StreamNotifier { spec, .. } = serde_saphyr::from_str(text).expect("it parses");
        let spec: StreamNotifierSpec = spec;
        Arc::new(CompiledSpec::new(&spec).expect("it is valid"))
    });
    compiled.clone()
}

/// How long a stop may take: 20 s for posts under way, 8 s for the last checkpoint, and what a call
/// takes that was begun before.
pub const STOP_LIMIT: Duration = Duration::from_secs(40);
