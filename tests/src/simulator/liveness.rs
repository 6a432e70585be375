//! What has to hold in the end: once nothing fails any more, everything that is owed is delivered and
//! the worker is ready, soon; then a change arrives at once, also through a child; and a worker that
//! is told to stop stops, with all of it remembered.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::config::Plan;
use super::scenario::Story;
use super::step::Step;
use super::worker::{STOP_LIMIT, Worker};
use super::world::State;
use crate::streams_model::{Inconsistency, Model, ModelRecord, Status, Stream, Throttling};

/// How long everything may take until it is as it should be. The slowest: a worker that is no longer
/// the holder looks once a minute, and what is retried waits for up to half a minute.
const RECOVERY_LIMIT: Duration = Duration::from_secs(300);

/// How long a change may take where nothing ever was wrong, and where something still waits to be
/// tried again: a call that hung, or messages to a connection that is gone.
const DELIVERY_LIMIT: Duration = Duration::from_secs(10);
const DELIVERY_LIMIT_AFTER_FAULTS: Duration = Duration::from_secs(120);

/// What a process has sent before it ended may arrive so much later: a claim, too.
const LAST_WORD: Duration = Duration::from_secs(10);

/// How long a stop waits for what is under way.
const DRAIN_LIMIT: Duration = Duration::from_secs(20);

/// What a worker says whose stream is no more.
const STREAM_GONE: [&str; 3] = ["StreamNotFound", "StreamReplaced", "StreamDisabled"];

impl Story {
    /// Ends the faults, and looks whether all becomes well.
    pub async fn end(&mut self) -> Result<(), String> {
        self.end_faults();
        if !self.recovers().await? {
            return Ok(());
        }
        self.probe().await?;
        self.stop_all().await?;
        self.check_counted();
        Ok(())
    }

    fn end_faults(&mut self) {
        let enables = self.rng.u8(..4) > 0;
        self.world.with(|model, state| {
            state.faults.end();
            state.history.release(model.now());
            model.settings.inconsistency = Inconsistency::default();
            model.settings.throttling = Throttling::default();
            model.settings.unavailable = 0.0;
            for connection in &mut state.connections {
                connection.slow_until = 0;
            }
            if enables {
                model.enable();
            }
            state.note(model, || "--- nothing fails any more".to_owned());
        });
        let last = self.workers.last().map(|worker| worker.life.number);
        for worker in &self.workers {
            worker.pause(&self.world, false);
            worker.life.spare();
            // One that has no claim to lose would not end by itself.
            let has_claim =
                self.world.with(|_, state| state.history.lives[worker.life.number].claim.is_some());
            if !has_claim && Some(worker.life.number) != last {
                worker.kill();
            }
        }
        self.plan.dooms = 0;
        // From here on somebody has read what was lost, and wants it to go on.
        self.plan.stop_on_gap = false;
    }

    /// Waits until all is well; `false` if a guarantee was broken meanwhile.
    async fn recovers(&mut self) -> Result<bool, String> {
        let begun = Instant::now();
        loop {
            for worker in self.workers.extract_if(.., |worker| worker.is_over()) {
                worker.joined().await?;
            }
            if !self.workers.iter().any(Worker::is_at_work) {
                self.start();
            }
            if self.is_broken() {
                return Ok(false);
            }
            let wrong = self.wrong();
            if wrong.is_empty() && begun.elapsed() > LAST_WORD {
                return Ok(true);
            }
            if begun.elapsed() > RECOVERY_LIMIT {
                let how = format!("{RECOVERY_LIMIT:?} after the last fault: {}", wrong.join("; "));
                self.world.with(|model, state| state.break_guarantee(model, "liveness", how));
                return Ok(false);
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// What is not as it should be.
    fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        if let [worker] = &self.workers[..] {
            self.declare_stream_gone(worker);
            let (known, is_holder) = self.world.with(|model, state| {
                let holder = state.history.claims.last().map(|claim| claim.life);
                (known_troubles(model), holder == Some(worker.life.number))
            });
            let unready = worker.unready();
            // Without its stream it has nothing to begin with.
            let waits = unready.iter().any(|it| STREAM_GONE.contains(&it.as_str()));
            let is_known =
                |it: &&String| known.contains(&it.as_str()) || waits && *it == "Starting";
            let unready: Vec<_> = unready.iter().filter(|it| !is_known(it)).collect();
            if !unready.is_empty() || !is_holder && !waits {
                wrong.push(format!("{} is {unready:?}, and the holder: {is_holder}", worker.life));
            }
        } else {
            let lives: Vec<_> = self.workers.iter().map(|worker| worker.life.holder()).collect();
            wrong.push(format!("there are {lives:?}"));
        }
        let (owed, unread) = self.world.with(|model, state| {
            let State { history, connections, .. } = state;
            (history.owed(model, connections), history.unread(model))
        });
        if !owed.is_empty() {
            wrong.push(format!("record and connection {owed:?} are owed"));
        }
        if !unread.is_empty() {
            wrong.push(format!("the shards {unread:?} are not read"));
        }
        wrong
    }

    /// Every stream that is read is gone, and the worker says so: what they still had is told of.
    fn declare_stream_gone(&self, worker: &Worker) {
        let says_so = worker.unready().iter().any(|it| STREAM_GONE.contains(&it.as_str()));
        self.world.with(|model, state| {
            let is_gone = |stream: &Stream| {
                stream
                    .disabled
                    .is_some_and(|(_, done)| done + model.settings.retention_ms <= model.now())
            };
            let followed =
                if self.plan.follows_table { model.streams() } else { &model.streams()[..1] };
            if says_so && followed.iter().all(is_gone) {
                state.history.lost.extend(0..model.records().len());
            }
        });
    }

    /// Every item changes, some of them in a shard that was just opened: that is delivered at once.
    async fn probe(&mut self) -> Result<(), String> {
        let is_open =
            self.world.with(|model, _| model.streams().last().map(|it| it.status(model.now())));
        if is_open != Some(Status::Enabled) || !self.plan.follows_table && self.is_replaced() {
            return Ok(());
        }
        self.world.count("probed in the end");
        self.world.with(|model, _| {
            for shard in model.open_shards() {
                model.roll(shard);
            }
        });
        self.write(6).await;
        let limit = if self.is_calm() { DELIVERY_LIMIT } else { DELIVERY_LIMIT_AFTER_FAULTS };
        // A shard that rolls is found by a poll, and its child may be polled once in vain.
        let limit = limit + 2 * self.plan.poll_interval;
        let begun = Instant::now();
        loop {
            let (owed, unread) = self.world.with(|model, state| {
                let State { history, connections, .. } = state;
                (history.owed(model, connections), history.unread(model))
            });
            if owed.is_empty() && unread.is_empty() || self.is_broken() {
                return Ok(());
            }
            if begun.elapsed() > limit {
                let how = format!(
                    "with nothing wrong, {owed:?} took over {limit:?}, and the shards {unread:?} are not read"
                );
                self.world.with(|model, state| state.break_guarantee(model, "liveness", how));
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether nothing can still be waiting to be tried again.
    fn is_calm(&self) -> bool {
        let had_faults = self.plan.weights.iter().any(|(step, weight)| {
            *weight > 0 && matches!(step, Step::StreamsDown | Step::HangUp | Step::GatewayDown)
        });
        let Plan { chances, settings, .. } = &self.plan;
        let single =
            chances.streams + chances.slow + settings.unavailable + settings.throttling.random;
        !had_faults && single == 0.0
    }

    fn is_replaced(&self) -> bool {
        self.world.with(|model, _| model.streams().len() > 1)
    }

    async fn stop_all(&mut self) -> Result<(), String> {
        let begun = Instant::now();
        for worker in &self.workers {
            worker.stop();
        }
        for worker in std::mem::take(&mut self.workers) {
            let life = worker.life.clone();
            let phase = worker.picture().phase;
            match timeout(STOP_LIMIT, worker.joined()).await {
                Ok(joined) => {
                    joined?;
                    self.check_remembered(life.number, begun.elapsed());
                }
                Err(_) => {
                    let how =
                        format!("{life}, which was {phase:?}, has not stopped in {STOP_LIMIT:?}");
                    self.world.with(|model, state| state.break_guarantee(model, "liveness", how));
                }
            }
        }
        Ok(())
    }

    /// What was given up or lost, and told in the logs, is counted in the metrics too.
    fn check_counted(&self) {
        self.world.with(|model, state| {
            let (told, gaps) = (&state.history.told, state.history.gaps);
            if told.is_empty() && gaps == 0 {
                return;
            }
            let metrics = self.metrics.encode();
            let count = |metric: &str, label: &str| -> u64 {
                let lines = metrics.lines().filter(|it| it.contains(metric) && it.contains(label));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
            };
            let of = |why: &str| count("_messages_total", &format!("outcome=\"{why}\""));
            let is_counted = |(why, times): (&String, &u64)| of(why) == *times;
            if !told.iter().all(is_counted) || count("_data_gaps_total", "name=") != gaps {
                let how = format!("given up {told:?}, and {gaps} gaps, but counted:\n{metrics}");
                state.break_guarantee(model, "none lost", how);
            }
        });
    }

    /// After a stop in peace nothing is left to repeat.
    fn check_remembered(&self, life: usize, took: Duration) {
        self.world.with(|model, state| {
            let history = &state.history;
            let claim = history.claims.last().filter(|claim| claim.life == life);
            let mut manners = claim.into_iter().flat_map(|claim| claim.manners.values());
            let asks_again = manners.any(|it| it.is_asked_again(model.now()));
            // Connections that are gone, one after the other, may take longer than a stop may.
            if took >= DRAIN_LIMIT && asks_again {
                return;
            }
            let told = claim.into_iter().flat_map(|claim| &claim.settled).map(|(record, _)| record);
            let is_remembered =
                |record: &ModelRecord| history.saved(record.shard).covers(record.number);
            // What is trimmed cannot be told again: its shard may be gone.
            let is_kept = |record: &&usize| !model.is_trimmed(**record, model.now());
            let told = told.filter(|record| is_kept(record));
            let claim = history.claims.len().saturating_sub(1);
            let forgotten: Vec<_> = told
                .filter(|record| !is_remembered(&model.records()[**record]))
                // Its letter may be tried for longer than a stop may take.
                .filter(|record| !state.lacks_letter(claim, **record))
                .collect();
            if !forgotten.is_empty() {
                let how = format!("after a stop in peace, {forgotten:?} are not remembered");
                state.break_guarantee(model, "remembered at a stop", how);
            }
        });
    }
}

/// What a worker says until there is another message, or another letter.
const OF_LAST_TRY: [&str; 7] = [
    "GatewayUnavailable",
    // The message that found the gate shut may have been given up at its next try.
    "GatewayUnreachable",
    "GatewayForbidden",
    "NoCredentials",
    "DeadLetterQueueNotFound",
    "DeadLetterQueueAccessDenied",
    "DeadLetterQueueUnavailable",
];

/// What a worker may say of itself although nothing fails: its stream gets no more changes, or there
/// was no message since the gateway was down, no letter since the queue was.
fn known_troubles(model: &Model) -> Vec<&'static str> {
    let is_open =
        model.streams().last().is_some_and(|it| it.status(model.now()) == Status::Enabled);
    let of_stream: &[_] = match is_open {
        true if model.streams().len() == 1 => &[],
        true => &["StreamReplaced"],
        false => &["StreamDisabled", "StreamReplaced", "StreamNotFound"],
    };
    [of_stream, &OF_LAST_TRY].concat()
}
