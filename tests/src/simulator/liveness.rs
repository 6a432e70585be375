//! Checks liveness at the end of a run. Once all faults end, the worker must become ready and
//! deliver every message. A new record must then arrive at once, also through a child shard. A
//! worker that is stopped must exit with everything settled in its final checkpoint.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use super::config::ScenarioConfig;
use super::scenario::Scenario;
use super::step::Step;
use super::worker::{STOP_TIMEOUT, Worker};
use super::world::State;
use crate::streams_model::{Inconsistency, Model, ModelRecord, Status, Stream, Throttling};

/// The longest time until the worker has recovered. A worker that lost its claim finds out within
/// one minute, and retries wait for up to 30 s.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(300);

/// The longest time of a delivery in a run without faults, and in one in which a retry may be
/// pending: of a call that timed out, or of messages to a closed connection.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(10);
const DELIVERY_TIMEOUT_AFTER_FAULTS: Duration = Duration::from_secs(120);

/// A request that a process sent before its end can have an effect this much later, also a claim.
const MAX_LATE_EFFECT: Duration = Duration::from_secs(10);

/// A stop waits for posts in flight for this long.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// Reasons of a worker without a stream that receives records.
const NO_STREAM_REASONS: [&str; 3] = ["StreamNotFound", "StreamReplaced", "StreamDisabled"];

impl Scenario {
    /// Ends the faults and checks that the worker recovers.
    pub async fn check_liveness(&mut self) -> Result<(), String> {
        self.stop_faults();
        if !self.wait_recovery().await? {
            return Ok(());
        }
        self.check_new_records().await?;
        self.stop_all().await?;
        self.check_drop_metrics();
        Ok(())
    }

    fn stop_faults(&mut self) {
        let enables = self.rng.u8(..4) > 0;
        self.world.with(|model, state| {
            state.faults.end();
            state.history.end_holds(model.now());
            model.settings.inconsistency = Inconsistency::default();
            model.settings.throttling = Throttling::default();
            model.settings.unavailable = 0.0;
            for connection in &mut state.connections {
                connection.slow_until = 0;
            }
            if enables {
                model.enable();
            }
            state.trace_line(model, || "--- all faults end".to_owned());
        });
        let last = self.workers.last().map(|worker| worker.process.number);
        for worker in &self.workers {
            worker.pause(&self.world, false);
            worker.process.clear_crash_point();
            // One without a claim cannot lose it, and would not exit by itself.
            let has_claim = self
                .world
                .with(|_, state| state.history.processes[worker.process.number].claim.is_some());
            if !has_claim && Some(worker.process.number) != last {
                worker.kill();
            }
        }
        self.config.crashes_of_ten = 0;
        // From here on, the user accepts data gaps.
        self.config.stop_on_gap = false;
    }

    /// Waits until the worker has recovered; `false` if a guarantee was violated meanwhile.
    async fn wait_recovery(&mut self) -> Result<bool, String> {
        let started = Instant::now();
        loop {
            for worker in self.workers.extract_if(.., |worker| worker.has_ended()) {
                worker.join().await?;
            }
            if !self.workers.iter().any(Worker::is_working) {
                self.start_process();
            }
            if self.has_violation() {
                return Ok(false);
            }
            let problems = self.find_problems();
            if problems.is_empty() && started.elapsed() > MAX_LATE_EFFECT {
                return Ok(true);
            }
            if started.elapsed() > RECOVERY_TIMEOUT {
                let details =
                    format!("{RECOVERY_TIMEOUT:?} after the last fault: {}", problems.join("; "));
                self.world.with(|model, state| state.report_violation(model, "liveness", details));
                return Ok(false);
            }
            sleep(Duration::from_millis(250)).await;
        }
    }

    /// What is still wrong.
    fn find_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        if let [worker] = &self.workers[..] {
            self.accept_deleted_streams(worker);
            let (expected, is_holder) = self.world.with(|model, state| {
                let holder = state.history.claims.last().map(|claim| claim.process);
                (expected_problems(model), holder == Some(worker.process.number))
            });
            let unready = worker.unready_reasons();
            // Without a stream, it cannot start.
            let has_no_stream = unready.iter().any(|it| NO_STREAM_REASONS.contains(&it.as_str()));
            let is_expected = |it: &&String| {
                expected.contains(&it.as_str()) || has_no_stream && *it == "Starting"
            };
            let unready: Vec<_> = unready.iter().filter(|it| !is_expected(it)).collect();
            if !unready.is_empty() || !is_holder && !has_no_stream {
                problems.push(format!(
                    "{} is {unready:?}, and the holder: {is_holder}",
                    worker.process
                ));
            }
        } else {
            let processes: Vec<_> =
                self.workers.iter().map(|worker| worker.process.holder()).collect();
            problems.push(format!("these processes run: {processes:?}"));
        }
        let (undelivered, unread) = self.world.with(|model, state| {
            let State { history, connections, .. } = state;
            (history.undelivered(model, connections), history.unread(model))
        });
        if !undelivered.is_empty() {
            problems.push(format!("record and connection {undelivered:?} are undelivered"));
        }
        if !unread.is_empty() {
            problems.push(format!("shards {unread:?} are unread"));
        }
        problems
    }

    /// Treats all records as reported if the worker reports that all of its streams are deleted.
    fn accept_deleted_streams(&self, worker: &Worker) {
        let is_reported =
            worker.unready_reasons().iter().any(|it| NO_STREAM_REASONS.contains(&it.as_str()));
        self.world.with(|model, state| {
            let is_deleted = |stream: &Stream| {
                stream
                    .disabled
                    .is_some_and(|(_, done)| done + model.settings.retention_ms <= model.now())
            };
            let followed =
                if self.config.follows_table { model.streams() } else { &model.streams()[..1] };
            if is_reported && followed.iter().all(is_deleted) {
                state.history.lost.extend(0..model.records().len());
            }
        });
    }

    /// Writes every item, also in shards that were just opened, and checks that all are delivered
    /// soon.
    async fn check_new_records(&mut self) -> Result<(), String> {
        let is_open =
            self.world.with(|model, _| model.streams().last().map(|it| it.status(model.now())));
        if is_open != Some(Status::Enabled) || !self.config.follows_table && self.is_replaced() {
            return Ok(());
        }
        self.world.count("final probe");
        self.world.with(|model, _| {
            for shard in model.open_shards() {
                model.roll(shard);
            }
        });
        self.write(6).await;
        let limit =
            if self.had_no_faults() { DELIVERY_TIMEOUT } else { DELIVERY_TIMEOUT_AFTER_FAULTS };
        // A poll finds the end of the shard, and the first poll of its child can be empty.
        let limit = limit + 2 * self.config.poll_interval;
        let started = Instant::now();
        loop {
            let (undelivered, unread) = self.world.with(|model, state| {
                let State { history, connections, .. } = state;
                (history.undelivered(model, connections), history.unread(model))
            });
            if undelivered.is_empty() && unread.is_empty() || self.has_violation() {
                return Ok(());
            }
            if started.elapsed() > limit {
                let details = format!(
                    "without faults, {undelivered:?} took over {limit:?}, and shards {unread:?} are unread"
                );
                self.world.with(|model, state| state.report_violation(model, "liveness", details));
                return Ok(());
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Whether no retry can be pending.
    fn had_no_faults(&self) -> bool {
        let had_faults = self.config.weights.iter().any(|(step, weight)| {
            *weight > 0 && matches!(step, Step::StreamsDown | Step::HangUp | Step::GatewayDown)
        });
        let ScenarioConfig { chances, settings, .. } = &self.config;
        let single_call_faults =
            chances.streams + chances.slow + settings.unavailable + settings.throttling.random;
        !had_faults && single_call_faults == 0.0
    }

    fn is_replaced(&self) -> bool {
        self.world.with(|model, _| model.streams().len() > 1)
    }

    async fn stop_all(&mut self) -> Result<(), String> {
        let started = Instant::now();
        for worker in &self.workers {
            worker.stop();
        }
        for worker in std::mem::take(&mut self.workers) {
            let process = worker.process.clone();
            let phase = worker.health().phase;
            match timeout(STOP_TIMEOUT, worker.join()).await {
                Ok(joined) => {
                    joined?;
                    self.check_final_checkpoint(process.number, started.elapsed());
                }
                Err(_) => {
                    let details = format!(
                        "{process}, which was {phase:?}, has not stopped within {STOP_TIMEOUT:?}"
                    );
                    self.world
                        .with(|model, state| state.report_violation(model, "liveness", details));
                }
            }
        }
        Ok(())
    }

    /// Checks that the metrics count every drop and data gap that the log reports.
    fn check_drop_metrics(&self) {
        self.world.with(|model, state| {
            let (dropped, gaps) = (&state.history.drop_counts, state.history.gaps);
            if dropped.is_empty() && gaps == 0 {
                return;
            }
            let metrics = self.metrics.encode();
            let count = |metric: &str, label: &str| -> u64 {
                let lines = metrics.lines().filter(|it| it.contains(metric) && it.contains(label));
                lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
            };
            let of = |reason: &str| count("_messages_total", &format!("outcome=\"{reason}\""));
            let is_counted = |(reason, times): (&String, &u64)| of(reason) == *times;
            if !dropped.iter().all(is_counted) || count("_data_gaps_total", "name=") != gaps {
                let details = format!(
                    "the log reports {dropped:?} and {gaps} data gaps, the metrics:\n{metrics}"
                );
                state.report_violation(model, "drops counted", details);
            }
        });
    }

    /// Checks that a stop leaves nothing to repeat.
    fn check_final_checkpoint(&self, process: usize, took: Duration) {
        self.world.with(|model, state| {
            let history = &state.history;
            let claim = history.claims.last().filter(|claim| claim.process == process);
            let mut connections = claim.into_iter().flat_map(|claim| claim.connections.values());
            let is_retried = connections.any(|it| it.is_retried_as_closed(model.now()));
            // Several connections that prove to be closed can take longer than a stop waits.
            if took >= DRAIN_TIMEOUT && is_retried {
                return;
            }
            let settled =
                claim.into_iter().flat_map(|claim| &claim.settled).map(|(record, _)| record);
            let is_in_checkpoint =
                |record: &ModelRecord| history.saved(record.shard).covers(record.number);
            // A trimmed record cannot be delivered again, and its shard may be gone.
            let is_kept = |record: &&usize| !model.is_trimmed(**record, model.now());
            let settled = settled.filter(|record| is_kept(record));
            let claim = history.claims.len().saturating_sub(1);
            let forgotten: Vec<_> = settled
                .filter(|record| !is_in_checkpoint(&model.records()[**record]))
                // A dead letter can be retried for longer than a stop waits.
                .filter(|record| !state.lacks_dead_letter(claim, **record))
                .collect();
            if !forgotten.is_empty() {
                let details = format!("after a stop, the checkpoint lacks {forgotten:?}");
                state.report_violation(model, "final checkpoint", details);
            }
        });
    }
}

/// Reasons that stay until there is another message, or another dead letter.
const STICKY_REASONS: [&str; 7] = [
    "GatewayUnavailable",
    // The message that opened the circuit breaker may have been dropped at its next attempt.
    "GatewayUnreachable",
    "GatewayForbidden",
    "NoCredentials",
    "DeadLetterQueueNotFound",
    "DeadLetterQueueAccessDenied",
    "DeadLetterQueueUnavailable",
];

/// Reasons that the worker may report although nothing fails: its stream receives no more records,
/// or nothing was posted or sent since the last failure.
fn expected_problems(model: &Model) -> Vec<&'static str> {
    let is_open =
        model.streams().last().is_some_and(|it| it.status(model.now()) == Status::Enabled);
    let of_stream: &[_] = match is_open {
        true if model.streams().len() == 1 => &[],
        true => &["StreamReplaced"],
        false => &["StreamDisabled", "StreamReplaced", "StreamNotFound"],
    };
    [of_stream, &STICKY_REASONS].concat()
}
