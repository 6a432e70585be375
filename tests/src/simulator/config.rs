//! What a run is made of: everything that follows from its seed before it begins. Each seed switches
//! on some of all that can happen, so that different seeds are hard on different things.

use std::time::Duration;

use fastrand::Rng;
use stream_notifier::delivery::{DeliveryLimits, DeliveryPolicy, SlowClientAction};

use super::faults::Chances;
use super::step::Step;
use crate::streams_model::{Inconsistency, Settings, Throttling};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;

/// Where the first worker begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// Now.
    Latest,
    /// With the oldest record.
    TrimHorizon,
    /// So many seconds ago.
    Ago(u64),
}

/// A run's plan.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The table.
    pub settings: Settings,
    /// How likely single calls go wrong.
    pub chances: Chances,
    /// How long a call takes, at the most.
    pub latency: Duration,
    /// Whether the table is followed, or one stream.
    pub follows_table: bool,
    /// Where reading begins.
    pub beginning: Beginning,
    /// What a gap leads to.
    pub stop_on_gap: bool,
    /// How often a quiet shard is asked.
    pub poll_interval: Duration,
    /// How much may be under way at once.
    pub bounds: DeliveryLimits,
    /// Pages in memory at once.
    pub max_pages: usize,
    /// What is done about messages that do not get through.
    pub policy: DeliveryPolicy,
    /// Whether there is a dead-letter queue.
    pub has_queue: bool,
    /// How many items there are; those of one group are told to the same connections.
    pub items: usize,
    /// How many groups.
    pub groups: usize,
    /// How many connections there are at the beginning.
    pub connections: usize,
    /// The most rows on a page of a lookup.
    pub rows_on_a_page: usize,
    /// How many of ten workers are to end at a call from their start.
    pub dooms: u32,
    /// How many steps are taken.
    pub steps: usize,
    /// Which, and how often.
    pub weights: Vec<(Step, u32)>,
}

impl Plan {
    /// The plan of a seed.
    pub fn draw(rng: &mut Rng) -> Self {
        let groups = rng.usize(1..=2);
        Self {
            settings: settings(rng),
            chances: Chances {
                streams: some(rng, 0.05),
                connections: some(rng, 0.1),
                posts: some(rng, 0.2),
                store: some(rng, 0.2),
                letters: some(rng, 0.4),
                slow: some(rng, 0.02),
            },
            latency: Duration::from_millis([2, 10, 40][rng.usize(..3)]),
            follows_table: rng.u8(..3) > 0,
            beginning: match rng.u8(..6) {
                0 | 1 => Beginning::TrimHorizon,
                2 => Beginning::Ago(rng.u64(1..60)),
                _ => Beginning::Latest,
            },
            stop_on_gap: rng.u8(..3) == 0,
            poll_interval: Duration::from_millis([250, 1_000, 2_000, 5_000][rng.usize(..4)]),
            bounds: bounds(rng),
            max_pages: [1, 2, 16][rng.usize(..3)],
            policy: policy(rng),
            has_queue: rng.u8(..3) > 0,
            items: rng.usize(1..=6),
            groups,
            connections: rng.usize(1..=3),
            rows_on_a_page: rng.usize(1..=3),
            dooms: [0, 2, 6][rng.usize(..3)],
            steps: rng.usize(4..=24),
            weights: Step::ALL.map(|(step, weight)| (step, weight * rng.u32(..4))).to_vec(),
        }
    }
}

/// Something up to `most`, or nothing at all.
fn some(rng: &mut Rng, most: f64) -> f64 {
    if rng.bool() { rng.f64() * most } else { 0.0 }
}

fn policy(rng: &mut Rng) -> DeliveryPolicy {
    // Only a client that others leave behind is disconnected, which is rare.
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

/// Mostly so tight that they are reached.
fn bounds(rng: &mut Rng) -> DeliveryLimits {
    let DeliveryLimits {
        memory_kib,
        max_queued_messages: waiting,
        connection_kib,
        max_posts: posts,
    } = DeliveryLimits::default();
    DeliveryLimits {
        connection_kib: [1, 2, 4, connection_kib][rng.usize(..4)],
        memory_kib: [1, 3, 8, memory_kib][rng.usize(..4)],
        max_queued_messages: [1, 2, 8, waiting][rng.usize(..4)],
        max_posts: [1, 2, posts][rng.usize(..3)],
    }
}

fn settings(rng: &mut Rng) -> Settings {
    let throttling = Throttling {
        random: some(rng, 0.05),
        readers: (rng.u8(..4) == 0).then(|| rng.usize(1..=2)),
        // A table's streams are listed too rarely to meet the service's own limit.
        lists: Some(if rng.bool() { 1 } else { 5 }),
        ..Throttling::default()
    };
    let inconsistency = Inconsistency {
        stale: some(rng, 0.5),
        stale_ms: 10 * SECOND,
        late: some(rng, 0.5),
        late_ms: 10 * SECOND,
        missing: some(rng, 0.1),
        open_parent: some(rng, 0.3),
        ends_on_open: rng.u8(..4) == 0,
    };
    Settings {
        shards: rng.usize(1..=3),
        roll_ms: (rng.u8(..8) > 0).then_some(4 * HOUR),
        enabling_ms: [0, 500, 5 * SECOND][rng.usize(..3)],
        disabling_ms: [0, 500, 5 * SECOND][rng.usize(..3)],
        record_delay_ms: [0, 50, 500][rng.usize(..3)],
        records_on_a_page: [1, 3, 10, 1_000][rng.usize(..4)],
        shards_on_a_page: [1, 3, 100][rng.usize(..3)],
        empty_page: some(rng, 0.3),
        short_page: some(rng, 0.3),
        separate_end: some(rng, 1.0),
        knows_timestamps: rng.u8(..4) > 0,
        knows_filter: rng.u8(..4) > 0,
        inconsistency,
        throttling,
        unavailable: some(rng, 0.05),
        ..Settings::default()
    }
}
