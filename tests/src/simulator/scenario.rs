//! Runs the steps of a run: writes, connections, shards that open and close, and processes that
//! start and end. [`fault_injection`](super::fault_injection) has the faults.

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use stream_notifier::delivery::SlowClientAction;
use stream_notifier::telemetry::Metrics;
use tokio::time::sleep;

use super::config::ScenarioConfig;
use super::connections::Connection;
use super::step::Step;
use super::worker::Worker;
use super::worker_process::{Call, CallSide, CrashPoint};
use super::world::World;
use crate::streams_model::Key;

/// Maximum of connections in one run.
pub const MAX_CONNECTIONS: usize = 12;

/// A run in progress.
#[derive(Debug)]
pub struct Scenario {
    pub world: Arc<World>,
    pub config: ScenarioConfig,
    pub metrics: Metrics,
    /// Processes that run, and those that ended since the last step.
    pub workers: Vec<Worker>,
    pub(super) rng: Rng,
    /// Paused processes, and when they resume.
    pub(super) resumptions: Vec<(usize, u64)>,
}

impl Scenario {
    pub fn new(world: Arc<World>, config: ScenarioConfig, rng: Rng) -> Self {
        let (metrics, workers, resumptions) = (Metrics::default(), vec![], vec![]);
        Self { world, config, metrics, workers, rng, resumptions }
    }

    /// Runs all steps, up to the end of the faults.
    pub async fn run_steps(&mut self) -> Result<(), String> {
        self.create_initial_state().await;
        for _ in 0..self.config.steps {
            self.resume_and_replace_workers().await?;
            if self.has_violation() {
                return Ok(());
            }
            let step = self.draw_step();
            self.world.with(|model, state| {
                state.counts.add(step.label());
                state.trace_line(model, || format!("--- {step:?}"));
            });
            self.run_step(step).await;
            self.sleep_up_to(2_000).await;
        }
        self.resume_and_replace_workers().await
    }

    /// Whether a guarantee was violated. Later violations may follow from that one.
    pub fn has_violation(&self) -> bool {
        self.world.with(|_, state| state.violation.is_some())
    }

    /// Creates the items and connections that exist before the first worker.
    async fn create_initial_state(&mut self) {
        for _ in 0..self.config.connections {
            self.connect(0);
        }
        for item in 0..self.config.items {
            self.world.write(&self.key(item), false);
        }
        sleep(Duration::from_secs(self.rng.u64(0..60))).await;
        self.write(3).await;
    }

    /// Resumes processes that are due, and often starts one if none runs.
    async fn resume_and_replace_workers(&mut self) -> Result<(), String> {
        let now = self.now();
        for (process, at) in &mut self.resumptions {
            if *at <= now
                && let Some(worker) = self.workers.iter().find(|it| it.process.number == *process)
            {
                worker.pause(&self.world, false);
                self.world.trace_line(|| format!("worker-{process} resumes"));
                *at = u64::MAX;
            }
        }
        self.resumptions.retain(|(_, at)| *at != u64::MAX);
        for worker in self.workers.extract_if(.., |worker| worker.has_ended()) {
            worker.join().await?;
        }
        if !self.workers.iter().any(Worker::is_working) && self.rng.u8(..3) > 0 {
            self.start_process();
        }
        Ok(())
    }

    /// Starts a process, with a crash point for a part of them.
    pub fn start_process(&mut self) {
        let (seed, stop_on_gap) = (self.rng.u64(..), self.config.stop_on_gap);
        self.world.count("worker started");
        self.workers.push(Worker::start(
            &self.world,
            &self.config,
            stop_on_gap,
            seed,
            &self.metrics,
        ));
        if self.config.crashes_of_ten > 0 && self.rng.u32(..10) < self.config.crashes_of_ten {
            let crash_point = self.draw_crash_point();
            if let Some(worker) = self.workers.last() {
                worker.process.set_crash_point(crash_point);
            }
        }
    }

    fn draw_step(&mut self) -> Step {
        let total: u32 = self.config.weights.iter().map(|(_, weight)| weight).sum();
        let mut rest = self.rng.u32(..total.max(1));
        for (step, weight) in &self.config.weights {
            if rest < *weight {
                return *step;
            }
            rest -= weight;
        }
        Step::Write
    }

    async fn run_step(&mut self, step: Step) {
        match step {
            Step::Write => {
                let max = [2, 5, 20][self.rng.usize(..3)];
                self.write(max).await;
            }
            Step::Wait => {
                let max_ms = [3_000, 10_000, 70_000][self.rng.usize(..3)];
                self.sleep_up_to(max_ms).await;
            }
            Step::Roll | Step::Split => self.close_shard(step == Step::Split),
            Step::Disable => self.world.with(|model, _| model.disable()),
            Step::Enable => self.world.with(|model, _| model.enable()),
            Step::Connect => {
                let established_after = self.rng.u64(0..4_000);
                self.connect(established_after);
            }
            Step::HangUp => self.close_connection().await,
            Step::SlowClient => self.slow_client().await,
            Step::Crash => self.with_worker(Worker::kill),
            Step::CrashPoint => self.set_crash_point(),
            Step::Pause => self.pause_process(),
            Step::Takeover => self.start_process(),
            Step::Stop => self.with_worker(Worker::stop),
            Step::StreamsDown
            | Step::ConnectionsDown
            | Step::GatewayDown
            | Step::StoreDown
            | Step::QueueDown => {
                let max_ms = [3_000, 30_000, 400_000][self.rng.usize(..3)];
                let lasts_ms = self.rng.u64(..max_ms);
                self.fail_backend(step, lasts_ms);
            }
            Step::Throttle => self.throttle_account().await,
            Step::LongOutage => self.long_outage().await,
            Step::StoreWrite => self.world.with(|_, state| state.store.write_annotation()),
            Step::Outage => self.crash_all().await,
            Step::ClockStop => self.stop_clocks().await,
        }
    }

    pub async fn sleep_up_to(&mut self, max_ms: u64) {
        sleep(Duration::from_millis(self.rng.u64(0..=max_ms))).await;
    }

    pub(super) fn now(&self) -> u64 {
        self.world.clock.now()
    }

    fn key(&self, item: usize) -> Key {
        let group = item % self.config.groups;
        Key::target(&format!("item{item}"), &format!("group{group}"))
    }

    /// Writes up to `max` items. One in 10 does not match the rules.
    pub async fn write(&mut self, max: usize) {
        let (writes, is_burst) = (self.rng.usize(1..=max), self.rng.bool());
        for _ in 0..writes {
            let item = self.rng.usize(..self.config.items);
            let mut key = self.key(item);
            let deletes = self.rng.u8(..20) == 0;
            if self.rng.u8(..10) == 0 {
                key.pk = key.pk.replace("target", "other");
            }
            self.world.write(&key, deletes);
            if !is_burst {
                self.sleep_up_to(500).await;
            }
        }
    }

    fn close_shard(&mut self, splits: bool) {
        let rng = &mut self.rng;
        self.world.with(|model, state| {
            let open = model.open_shards();
            let Some(&shard) = rng.choice(&open) else { return };
            if splits && open.len() < 6 {
                model.split(shard)
            } else {
                model.roll(shard)
            }
            state.trace_line(model, || format!("shard {shard} is closed"));
        });
    }

    pub(super) fn connect(&mut self, established_after: u64) {
        let group = format!("group{}", self.rng.usize(..self.config.groups));
        self.world.with(|model, state| {
            let number = state.connections.len();
            if number >= MAX_CONNECTIONS {
                return;
            }
            state.trace_line(model, || format!("conn{number:02} of {group} is stored"));
            state.connections.push(Connection {
                id: format!("conn{number:02}"),
                group,
                stored_at: model.now(),
                established_at: model.now() + established_after,
                is_stored: true,
                is_closed: false,
                slow_until: 0,
            });
        });
    }

    fn with_connection(&mut self, edit: impl FnOnce(u64, &mut Connection)) {
        let rng = &mut self.rng;
        self.world.with(|model, state| {
            let now = model.now();
            let index = rng.usize(..state.connections.len());
            edit(now, &mut state.connections[index]);
            state.trace_line(model, || format!("conn{index:02}"));
        });
    }

    /// Closes a connection. Its row is deleted, or left for the worker to delete.
    async fn close_connection(&mut self) {
        let is_removed = self.rng.bool();
        self.with_connection(|_, connection| {
            connection.is_closed = true;
            connection.is_stored &= !is_removed;
        });
        // The worker will read and delete the row.
        if !is_removed && self.rng.u8(..4) > 0 {
            let side = if self.rng.bool() { CallSide::Before } else { CallSide::After };
            let call = if self.rng.bool() { Call::GetRow } else { Call::DeleteRow };
            let crash_point = CrashPoint { call: Some(call), side, skipped_calls: 0 };
            self.with_worker(|worker| worker.process.set_crash_point(crash_point));
            self.write(5).await;
            // After the four 410 responses that prove it closed.
            sleep(Duration::from_secs(8)).await;
        }
    }

    async fn slow_client(&mut self) {
        let max_ms = [5_000, 60_000, 400_000][self.rng.usize(..3)];
        let lasts_ms = self.rng.u64(..max_ms);
        let rng = &mut self.rng;
        self.world.with(|model, state| {
            let is_open = |it: &&mut Connection| it.is_stored && !it.is_closed;
            let candidates: Vec<_> = state.connections.iter_mut().filter(is_open).collect();
            if let Some(connection) = rng.choice(candidates) {
                connection.slow_until = model.now() + lasts_ms;
                let id = connection.id.clone();
                state.trace_line(model, || id);
            }
        });
        // These calls are rare otherwise.
        if self.rng.u8(..3) > 0 {
            let side = if self.rng.bool() { CallSide::Before } else { CallSide::After };
            let is_closed = self.config.policy.slow_client == SlowClientAction::Disconnect;
            let call = match is_closed && self.rng.u8(..4) > 0 {
                true => Call::Disconnect,
                false => Call::SendDeadLetter,
            };
            let crash_point = CrashPoint { call: Some(call), side, skipped_calls: 0 };
            self.with_worker(|worker| worker.process.set_crash_point(crash_point));
        }
        // Enough messages for an effect.
        self.write(10).await;
    }

    /// Applies `act` to a random process that has not ended.
    pub(super) fn with_worker(&mut self, act: impl FnOnce(&Worker)) {
        let candidates: Vec<_> = self.workers.iter().filter(|it| !it.has_ended()).collect();
        let Some(worker) = self.rng.choice(candidates) else { return };
        self.world.trace_line(|| format!("{}", worker.process));
        act(worker);
    }
}
