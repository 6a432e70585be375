//! Configuration of a run, drawn from its seed. Each seed enables only a part of all faults, so
//! that different seeds stress different things.

use std::time::Duration;

use fastrand::Rng;
use stream_notifier::delivery::{DeliveryLimits, DeliveryPolicy, SlowClientAction};

use super::faults::Chances;
use super::step::Step;
use crate::streams_model::{Inconsistency, Settings, Throttling};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// Start position of the first worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartPosition {
    Latest,
    TrimHorizon,
    /// `AtTimestamp`, this many seconds before the start of the run.
    SecondsBefore(u64),
}

#[derive(Clone, Debug)]
pub struct ScenarioConfig {
    pub settings: Settings,
    pub chances: Chances,
    /// Maximum latency of a call that is not slow.
    pub latency: Duration,
    /// Whether the spec has `tableArn` instead of `streamArn`.
    pub follows_table: bool,
    pub initial_position: StartPosition,
    pub stop_on_gap: bool,
    /// Poll interval of a quiet shard.
    pub poll_interval: Duration,
    pub limits: DeliveryLimits,
    pub max_pages: usize,
    pub policy: DeliveryPolicy,
    pub has_queue: bool,
    pub items: usize,
    /// Values of `sk`. The connections of a group receive the records of its items.
    pub groups: usize,
    /// Connections at the start.
    pub connections: usize,
    pub rows_per_page: usize,
    /// How many of 10 processes get a crash point at their start.
    pub crashes_of_ten: u32,
    pub steps: usize,
    /// The weight of each step.
    pub weights: Vec<(Step, u32)>,
}

impl ScenarioConfig {
    /// Draws the configuration of a run.
    pub fn draw(rng: &mut Rng) -> Self {
        let groups = rng.usize(1..=2);
        Self {
            settings: settings(rng),
            chances: Chances {
                streams: zero_or_up_to(rng, 0.05),
                connections: zero_or_up_to(rng, 0.1),
                posts: zero_or_up_to(rng, 0.2),
                store: zero_or_up_to(rng, 0.2),
                dead_letters: zero_or_up_to(rng, 0.4),
                slow: zero_or_up_to(rng, 0.02),
            },
            latency: Duration::from_millis([2, 10, 40][rng.usize(..3)]),
            follows_table: rng.u8(..3) > 0,
            initial_position: match rng.u8(..6) {
                0 | 1 => StartPosition::TrimHorizon,
                2 => StartPosition::SecondsBefore(rng.u64(1..60)),
                _ => StartPosition::Latest,
            },
            stop_on_gap: rng.u8(..3) == 0,
            poll_interval: Duration::from_millis([250, 1_000, 2_000, 5_000][rng.usize(..4)]),
            limits: limits(rng),
            max_pages: [1, 2, 16][rng.usize(..3)],
            policy: policy(rng),
            has_queue: rng.u8(..3) > 0,
            items: rng.usize(1..=6),
            groups,
            connections: rng.usize(1..=3),
            rows_per_page: rng.usize(1..=3),
            crashes_of_ten: [0, 2, 6][rng.usize(..3)],
            steps: rng.usize(4..=24),
            weights: Step::ALL.map(|(step, weight)| (step, weight * rng.u32(..4))).to_vec(),
        }
    }
}

/// 0 in half of the runs, otherwise up to `max`.
fn zero_or_up_to(rng: &mut Rng, max: f64) -> f64 {
    if rng.bool() { rng.f64() * max } else { 0.0 }
}

fn policy(rng: &mut Rng) -> DeliveryPolicy {
    // A disconnect is rare, because others must receive messages meanwhile.
    let slow_clients = [
        SlowClientAction::Wait,
        SlowClientAction::Drop,
        SlowClientAction::Disconnect,
        SlowClientAction::Disconnect,
    ];
    DeliveryPolicy {
        max_age: Duration::from_secs([5, 30, 300, 300][rng.usize(..4)]),
        max_attempts: (rng.u8(..3) == 0).then(|| rng.u32(1..=5)),
        slow_client: slow_clients[rng.usize(..4)],
    }
}

/// Draws limits that are mostly small enough to be reached.
fn limits(rng: &mut Rng) -> DeliveryLimits {
    let DeliveryLimits { memory_kib, max_queued_messages, connection_kib, max_posts } =
        DeliveryLimits::default();
    DeliveryLimits {
        connection_kib: [1, 2, 4, connection_kib][rng.usize(..4)],
        memory_kib: [1, 3, 8, memory_kib][rng.usize(..4)],
        max_queued_messages: [1, 2, 8, max_queued_messages][rng.usize(..4)],
        max_posts: [1, 2, max_posts][rng.usize(..3)],
    }
}

fn settings(rng: &mut Rng) -> Settings {
    let throttling = Throttling {
        random: zero_or_up_to(rng, 0.05),
        readers: (rng.u8(..4) == 0).then(|| rng.usize(1..=2)),
        // A table's streams are listed too rarely to reach the limit of AWS.
        lists: Some(if rng.bool() { 1 } else { 5 }),
        ..Throttling::default()
    };
    let inconsistency = Inconsistency {
        stale: zero_or_up_to(rng, 0.5),
        stale_ms: 10 * SECOND,
        late: zero_or_up_to(rng, 0.5),
        late_ms: 10 * SECOND,
        missing: zero_or_up_to(rng, 0.1),
        open_parent: zero_or_up_to(rng, 0.3),
        ends_on_open: rng.u8(..4) == 0,
    };
    Settings {
        shards: rng.usize(1..=3),
        roll_ms: (rng.u8(..8) > 0).then_some(4 * HOUR),
        enabling_ms: [0, 500, 5 * SECOND][rng.usize(..3)],
        disabling_ms: [0, 500, 5 * SECOND][rng.usize(..3)],
        record_delay_ms: [0, 50, 500][rng.usize(..3)],
        records_per_page: [1, 3, 10, 1_000][rng.usize(..4)],
        shards_per_page: [1, 3, 100][rng.usize(..3)],
        empty_page: zero_or_up_to(rng, 0.3),
        short_page: zero_or_up_to(rng, 0.3),
        separate_end: zero_or_up_to(rng, 1.0),
        supports_timestamps: rng.u8(..4) > 0,
        supports_shard_filter: rng.u8(..4) > 0,
        inconsistency,
        throttling,
        unavailable: zero_or_up_to(rng, 0.05),
        ..Settings::default()
    }
}
