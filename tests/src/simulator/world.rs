//! Everything outside the worker, and the truth about it: the table, the connections, what is
//! stored, what was delivered. Workers see it through [`Outside`](super::Outside) only; checks see
//! all of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use stream_notifier::delivery::{DeliveryLimits, DeliveryPolicy};

use super::connections::Connection;
use super::faults::Faults;
use super::history::History;
use super::store::Store;
use super::trace::Trace;
use super::{Counts, Plan};
use crate::streams_model::{Clock, Key, Model};

/// When every run begins, in milliseconds since 1970.
pub const EPOCH_MS: u64 = 1_790_000_000_250;

/// A guarantee that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which one.
    pub guarantee: &'static str,
    /// How, with the records concerned.
    pub how: String,
}

/// The world of one run.
#[derive(Debug)]
pub struct World {
    /// The table and its streams.
    pub model: Arc<Mutex<Model>>,
    /// Its clock.
    pub clock: Clock,
    state: Mutex<State>,
}

/// All but the table.
#[derive(Debug)]
pub struct State {
    /// What chance decides outside of the table.
    pub rng: Rng,
    /// How long calls take.
    pub latency: Duration,
    /// What goes wrong.
    pub faults: Faults,
    /// The connections there ever were.
    pub connections: Vec<Connection>,
    /// The most rows on a page of a lookup.
    pub rows_on_a_page: usize,
    /// How much a worker may have under way at once.
    pub bounds: DeliveryLimits,
    /// What they are to do about messages that do not get through.
    pub policy: DeliveryPolicy,
    /// Whether they have a dead-letter queue.
    pub has_queue: bool,
    /// The checkpoint.
    pub store: Store,
    /// What the workers did.
    pub history: History,
    /// How often everything happened.
    pub counts: Counts,
    /// All of it in words.
    pub trace: Trace,
    /// The first guarantee that was broken.
    pub broken: Option<Violation>,
    /// The value that the next write gives an item.
    next_value: u64,
    /// How many calls were made.
    calls: u64,
}

/// The most calls in one run; the longest runs make a tenth of it.
const MOST_CALLS: u64 = 500_000;

impl World {
    /// The world as a plan has it, before anything happens.
    pub fn new(plan: &Plan, rng: &mut Rng, trace: Trace) -> Self {
        let model = Model::new(plan.settings.clone(), rng.fork(), EPOCH_MS);
        let state = State {
            rng: rng.fork(),
            latency: plan.latency,
            faults: Faults::new(plan.chances),
            connections: vec![],
            rows_on_a_page: plan.rows_on_a_page,
            bounds: plan.bounds,
            policy: plan.policy,
            has_queue: plan.has_queue,
            store: Store::default(),
            history: History::new(plan.follows_table),
            counts: Counts::default(),
            trace,
            broken: None,
            next_value: 1,
            calls: 0,
        };
        Self {
            model: Arc::new(Mutex::new(model)),
            clock: Clock::starting_at(EPOCH_MS),
            state: Mutex::new(state),
        }
    }

    /// The world as it is now.
    pub fn with<T>(&self, act: impl FnOnce(&mut Model, &mut State) -> T) -> T {
        // Always the model first, so that nobody waits for one who waits for him.
        let mut model = self.model.lock().unwrap();
        model.advance_to(self.clock.now());
        act(&mut model, &mut self.state.lock().unwrap())
    }

    /// Notes a line of the trace.
    pub fn note(&self, line: impl FnOnce() -> String) {
        self.with(|model, state| state.note(model, line));
    }

    /// Counts something that happened.
    pub fn count(&self, what: &'static str) {
        self.state.lock().unwrap().counts.add(what);
    }

    /// Whether another call may be made: a worker that asks without end would never let time pass.
    pub fn admit(&self) -> bool {
        self.with(|model, state| {
            state.calls += 1;
            if state.calls == MOST_CALLS {
                let how = format!("{MOST_CALLS} calls were made");
                state.break_guarantee(model, "calls bounded", how);
            }
            state.calls < MOST_CALLS
        })
    }

    /// How long a call takes.
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
            state.note(model, || {
                let shard = model.records()[record].shard;
                format!("record {record} of {} written in shard {shard}", key.pk)
            });
        });
    }
}

impl State {
    /// Notes a line of the trace.
    pub fn note(&mut self, model: &Model, line: impl FnOnce() -> String) {
        self.trace.note(model.now() - EPOCH_MS, line);
    }

    /// Notes that a guarantee was broken; the first one counts.
    pub fn break_guarantee(&mut self, model: &Model, guarantee: &'static str, how: String) {
        self.note(model, || format!("BROKEN {guarantee}: {how}"));
        self.broken.get_or_insert(Violation { guarantee, how });
    }

    /// Whether something of this probability happens now.
    pub fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.rng.f64() < probability
    }
}
