//! Simulated world of one run: the table, the connections, the stored checkpoint, and the true
//! history. Workers access it only through [`Boundary`](super::boundary::Boundary). Checks see all
//! of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use stream_notifier::delivery::{DeliveryLimits, DeliveryPolicy};

use super::connections::Connection;
use super::faults::Faults;
use super::history::History;
use super::store::Store;
use super::trace::Trace;
use super::{Counts, ScenarioConfig};
use crate::streams_model::{Clock, Key, Model};

/// Start of every run, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_790_000_000_250;

/// The violation of a guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub guarantee: &'static str,
    /// What happened, with the records concerned.
    pub details: String,
}

/// The world of one run.
#[derive(Debug)]
pub struct World {
    /// The table and its streams.
    pub model: Arc<Mutex<Model>>,
    pub clock: Clock,
    state: Mutex<State>,
}

/// Everything except the table.
#[derive(Debug)]
pub struct State {
    pub rng: Rng,
    /// The usual latency of a call.
    pub latency: Duration,
    pub faults: Faults,
    /// Every connection, also closed ones.
    pub connections: Vec<Connection>,
    /// Maximum of rows per page of a query.
    pub rows_per_page: usize,
    pub limits: DeliveryLimits,
    pub policy: DeliveryPolicy,
    pub has_queue: bool,
    pub store: Store,
    pub history: History,
    pub counts: Counts,
    pub trace: Trace,
    /// The first violation; later ones may follow from it.
    pub violation: Option<Violation>,
    /// The value of the next write.
    next_value: u64,
    /// Calls made so far.
    calls: u64,
}

/// Maximum of calls in one run. The longest runs make a tenth of them.
const MAX_CALLS: u64 = 500_000;

impl World {
    pub fn new(config: &ScenarioConfig, rng: &mut Rng, trace: Trace) -> Self {
        let model = Model::new(config.settings.clone(), rng.fork(), EPOCH_MS);
        let state = State {
            rng: rng.fork(),
            latency: config.latency,
            faults: Faults::new(config.chances),
            connections: vec![],
            rows_per_page: config.rows_per_page,
            limits: config.limits,
            policy: config.policy,
            has_queue: config.has_queue,
            store: Store::default(),
            history: History::new(config.follows_table),
            counts: Counts::default(),
            trace,
            violation: None,
            next_value: 1,
            calls: 0,
        };
        Self {
            model: Arc::new(Mutex::new(model)),
            clock: Clock::starting_at(EPOCH_MS),
            state: Mutex::new(state),
        }
    }

    /// Advances the table to the current time and locks the world.
    pub fn with<T>(&self, act: impl FnOnce(&mut Model, &mut State) -> T) -> T {
        // Always the model first, because the opposite order can deadlock.
        let mut model = self.model.lock().unwrap();
        model.advance_to(self.clock.now());
        act(&mut model, &mut self.state.lock().unwrap())
    }

    pub fn trace_line(&self, line: impl FnOnce() -> String) {
        self.with(|model, state| state.trace_line(model, line));
    }

    pub fn count(&self, what: &'static str) {
        self.state.lock().unwrap().counts.add(what);
    }

    /// Whether another call is allowed. Without a bound, a worker that calls in a loop would keep
    /// the paused clock from advancing.
    pub fn try_admit_call(&self) -> bool {
        self.with(|model, state| {
            state.calls += 1;
            if state.calls == MAX_CALLS {
                let details = format!("more than {MAX_CALLS} calls");
                state.report_violation(model, "calls bounded", details);
            }
            state.calls < MAX_CALLS
        })
    }

    /// Draws the latency of a call.
    pub fn latency(&self) -> Duration {
        let state = &mut *self.state.lock().unwrap();
        let State { rng, latency, faults, .. } = state;
        let is_slow = rng.f64() < faults.chances.slow;
        let longest = if is_slow { *latency * 100 } else { *latency };
        longest.mul_f64(rng.f64()).max(Duration::from_millis(1))
    }

    /// Writes an item, or deletes it.
    pub fn write(&self, key: &Key, deletes: bool) {
        self.with(|model, state| {
            let value = state.next_value;
            state.next_value += 1;
            let record = model.write(key, (!deletes).then_some(value));
            let Some(record) = record else { return };
            if !deletes {
                state.history.record_of.insert(value, record);
            }
            state.trace_line(model, || {
                let shard = model.records()[record].shard;
                format!("record {record} of {} written in shard {shard}", key.pk)
            });
        });
    }
}

impl State {
    pub fn trace_line(&mut self, model: &Model, line: impl FnOnce() -> String) {
        self.trace.add(model.now() - EPOCH_MS, line);
    }

    /// Records a violation. Only the first one is kept.
    pub fn report_violation(&mut self, model: &Model, guarantee: &'static str, details: String) {
        self.trace_line(model, || format!("VIOLATION {guarantee}: {details}"));
        self.violation.get_or_insert(Violation { guarantee, details });
    }

    /// Draws whether an event of this probability happens.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }
}
