//! What happens in a run, step by step: changes and connections, shards that come and go, and workers
//! that begin and end. What is hard on them is in [`hardship`](super::fault_injection).

use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use stream_notifier::delivery::SlowClientAction;
use stream_notifier::telemetry::Metrics;
use tokio::time::sleep;

use super::config::Plan;
use super::connections::Connection;
use super::step::Step;
use super::worker::Worker;
use super::worker_process::{Call, CrashPoint, When};
use super::world::World;
use crate::streams_model::Key;

/// The most connections that there ever are.
pub const MOST_CONNECTIONS: usize = 12;

/// A run while it goes on.
#[derive(Debug)]
pub struct Story {
    /// The world.
    pub world: Arc<World>,
    /// The plan.
    pub plan: Plan,
    /// What the workers count.
    pub metrics: Metrics,
    /// Every worker there is, and those that ended lately.
    pub workers: Vec<Worker>,
    pub(super) rng: Rng,
    /// When paused workers go on, by their lives.
    pub(super) resumptions: Vec<(usize, u64)>,
}

impl Story {
    /// A run of which nothing has happened yet.
    pub fn new(world: Arc<World>, plan: Plan, rng: Rng) -> Self {
        let (metrics, workers, resumptions) = (Metrics::default(), vec![], vec![]);
        Self { world, plan, metrics, workers, rng, resumptions }
    }

    /// Everything up to the end of the faults.
    pub async fn unfold(&mut self) -> Result<(), String> {
        self.begin().await;
        for _ in 0..self.plan.steps {
            self.settle_workers().await?;
            if self.is_broken() {
                return Ok(());
            }
            let step = self.draw_step();
            self.world.with(|model, state| {
                state.counts.add(step.word());
                state.note(model, || format!("--- {step:?}"));
            });
            self.take(step).await;
            self.pause(2_000).await;
        }
        self.settle_workers().await
    }

    /// Whether a guarantee was broken: what comes after it tells nothing.
    pub fn is_broken(&self) -> bool {
        self.world.with(|_, state| state.broken.is_some())
    }

    /// Items and connections that were there before the first worker.
    async fn begin(&mut self) {
        for _ in 0..self.plan.connections {
            self.connect(0);
        }
        for item in 0..self.plan.items {
            self.world.write(&self.key(item), false);
        }
        sleep(Duration::from_secs(self.rng.u64(0..60))).await;
        self.write(3).await;
    }

    /// A new life now and then where there is none, and an end for those that waited long enough.
    async fn settle_workers(&mut self) -> Result<(), String> {
        let now = self.now();
        for (life, at) in &mut self.resumptions {
            if *at <= now
                && let Some(worker) = self.workers.iter().find(|it| it.life.number == *life)
            {
                worker.pause(&self.world, false);
                self.world.note(|| format!("worker-{life} goes on"));
                *at = u64::MAX;
            }
        }
        self.resumptions.retain(|(_, at)| *at != u64::MAX);
        for worker in self.workers.extract_if(.., |worker| worker.is_over()) {
            worker.joined().await?;
        }
        if !self.workers.iter().any(Worker::is_at_work) && self.rng.u8(..3) > 0 {
            self.start();
        }
        Ok(())
    }

    /// Starts a worker, which is to end at a call, or not.
    pub fn start(&mut self) {
        let (seed, stop_on_gap) = (self.rng.u64(..), self.plan.stop_on_gap);
        self.world.count("worker started");
        self.workers.push(Worker::start(&self.world, &self.plan, stop_on_gap, seed, &self.metrics));
        if self.plan.dooms > 0 && self.rng.u32(..10) < self.plan.dooms {
            let doom = self.draw_doom();
            if let Some(worker) = self.workers.last() {
                worker.life.doom(doom);
            }
        }
    }

    fn draw_step(&mut self) -> Step {
        let all: u32 = self.plan.weights.iter().map(|(_, weight)| weight).sum();
        let mut left = self.rng.u32(..all.max(1));
        for (step, weight) in &self.plan.weights {
            if left < *weight {
                return *step;
            }
            left -= weight;
        }
        Step::Write
    }

    async fn take(&mut self, step: Step) {
        match step {
            Step::Write => {
                let most = [2, 5, 20][self.rng.usize(..3)];
                self.write(most).await;
            }
            Step::Wait => {
                let longest = [3_000, 10_000, 70_000][self.rng.usize(..3)];
                self.pause(longest).await;
            }
            Step::Roll | Step::Split => self.divide(step == Step::Split),
            Step::Disable => self.world.with(|model, _| model.disable()),
            Step::Enable => self.world.with(|model, _| model.enable()),
            Step::Connect => {
                let up_after = self.rng.u64(0..4_000);
                self.connect(up_after);
            }
            Step::HangUp => self.hang_up().await,
            Step::SlowClient => self.slow_client().await,
            Step::Crash => self.with_worker(Worker::kill),
            Step::CrashPoint => self.doom(),
            Step::Pause => self.pause_one(),
            Step::Takeover => self.start(),
            Step::Stop => self.with_worker(Worker::stop),
            Step::StreamsDown
            | Step::ConnectionsDown
            | Step::GatewayDown
            | Step::StoreDown
            | Step::QueueDown => {
                let longest = [3_000, 30_000, 400_000][self.rng.usize(..3)];
                let lasts = self.rng.u64(..longest);
                self.fail(step, lasts);
            }
            Step::Throttle => self.throttle().await,
            Step::LongOutage => self.siege().await,
            Step::Touch => self.world.with(|_, state| state.store.touch()),
            Step::Outage => self.outage().await,
            Step::ClockStop => self.freeze().await,
        }
    }

    /// Lets some time pass, up to this many milliseconds.
    pub async fn pause(&mut self, longest: u64) {
        sleep(Duration::from_millis(self.rng.u64(0..=longest))).await;
    }

    pub(super) fn now(&self) -> u64 {
        self.world.clock.now()
    }

    fn key(&self, item: usize) -> Key {
        let group = item % self.plan.groups;
        Key::target(&format!("item{item}"), &format!("group{group}"))
    }

    /// Up to so many changes; some of no interest.
    pub async fn write(&mut self, most: usize) {
        let (changes, hurries) = (self.rng.usize(1..=most), self.rng.bool());
        for _ in 0..changes {
            let item = self.rng.usize(..self.plan.items);
            let mut key = self.key(item);
            let deletes = self.rng.u8(..20) == 0;
            if self.rng.u8(..10) == 0 {
                key.pk = key.pk.replace("target", "other");
            }
            self.world.write(&key, deletes);
            if !hurries {
                self.pause(500).await;
            }
        }
    }

    fn divide(&mut self, splits: bool) {
        let rng = &mut self.rng;
        self.world.with(|model, state| {
            let open = model.open_shards();
            let Some(&shard) = rng.choice(&open) else { return };
            if splits && open.len() < 6 {
                model.split(shard)
            } else {
                model.roll(shard)
            }
            state.note(model, || format!("shard {shard} is closed"));
        });
    }

    pub(super) fn connect(&mut self, up_after: u64) {
        let group = format!("group{}", self.rng.usize(..self.plan.groups));
        self.world.with(|model, state| {
            let number = state.connections.len();
            if number >= MOST_CONNECTIONS {
                return;
            }
            state.note(model, || format!("conn{number:02} of {group} is stored"));
            state.connections.push(Connection {
                id: format!("conn{number:02}"),
                group,
                stored_at: model.now(),
                up_at: model.now() + up_after,
                is_stored: true,
                is_gone: false,
                slow_until: 0,
            });
        });
    }

    fn with_connection(&mut self, change: impl FnOnce(u64, &mut Connection)) {
        let rng = &mut self.rng;
        self.world.with(|model, state| {
            let now = model.now();
            let index = rng.usize(..state.connections.len());
            change(now, &mut state.connections[index]);
            state.note(model, || format!("conn{index:02}"));
        });
    }

    /// A connection hangs up; its row goes, or is left behind.
    async fn hang_up(&mut self) {
        let is_removed = self.rng.bool();
        self.with_connection(|_, connection| {
            connection.is_gone = true;
            connection.is_stored &= !is_removed;
        });
        // A worker will read again and delete the row that is left behind.
        if !is_removed && self.rng.u8(..4) > 0 {
            let when = if self.rng.bool() { When::Before } else { When::After };
            let call = if self.rng.bool() { Call::GetRow } else { Call::DeleteRow };
            let doom = CrashPoint { call: Some(call), when, spared: 0 };
            self.with_worker(|worker| worker.life.doom(doom));
            self.write(5).await;
            // After the answers that say so three times.
            sleep(Duration::from_secs(8)).await;
        }
    }

    async fn slow_client(&mut self) {
        let longest = [5_000, 60_000, 400_000][self.rng.usize(..3)];
        let lasts = self.rng.u64(..longest);
        let rng = &mut self.rng;
        self.world.with(|model, state| {
            let is_there = |it: &&mut Connection| it.is_stored && !it.is_gone;
            let there: Vec<_> = state.connections.iter_mut().filter(is_there).collect();
            if let Some(connection) = rng.choice(there) {
                connection.slow_until = model.now() + lasts;
                let id = connection.id.clone();
                state.note(model, || id);
            }
        });
        // What follows from it does not happen often by itself.
        if self.rng.u8(..3) > 0 {
            let when = if self.rng.bool() { When::Before } else { When::After };
            let is_closed = self.plan.policy.slow_client == SlowClientAction::Disconnect;
            let call = match is_closed && self.rng.u8(..4) > 0 {
                true => Call::Disconnect,
                false => Call::SendLetter,
            };
            let doom = CrashPoint { call: Some(call), when, spared: 0 };
            self.with_worker(|worker| worker.life.doom(doom));
        }
        // So much that it shows.
        self.write(10).await;
    }

    /// Does something to one of the workers that are there.
    pub(super) fn with_worker(&mut self, act: impl FnOnce(&Worker)) {
        let there: Vec<_> = self.workers.iter().filter(|it| !it.is_over()).collect();
        let Some(worker) = self.rng.choice(there) else { return };
        self.world.note(|| format!("{}", worker.life));
        act(worker);
    }
}
