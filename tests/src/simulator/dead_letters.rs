//! Simulated dead-letter queue: sends are rejected, get lost, or lose their response. A dead letter
//! must name a record with dropped messages, and count them.

use futures::future::BoxFuture;
use stream_notifier::delivery::{DeadLetterError, DeadLetterErrorKind, DeadLetterQueue};

use super::boundary::Boundary;
use super::faults::active;
use super::worker_process::Call;
use super::world::State;
use crate::streams_model::Model;

const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:dead-letters";

/// The operator retries a failed dead letter for this long.
const RETRY_PERIOD_MS: u64 = 60_000;

impl State {
    /// Whether a dead letter of this record must still be sent, or be reported as lost.
    pub fn lacks_dead_letter(&self, claim: usize, record: usize) -> bool {
        let claim = &self.history.claims[claim];
        self.has_queue && claim.drops.contains_key(&record) && !claim.dead_letters.contains(&record)
    }

    /// Checks a dead letter and returns its claim and record; `None` if its record has no dropped
    /// message.
    fn check_dead_letter(
        &mut self,
        model: &Model,
        process: usize,
        text: &str,
    ) -> Option<(usize, usize)> {
        let claim = self.history.processes[process].claim?;
        let dead_letter: serde_json::Value = serde_json::from_str(text).ok()?;
        let shard = dead_letter["shardId"].as_str()?;
        let number: u128 =
            dead_letter["record"]["dynamodb"]["SequenceNumber"].as_str()?.parse().ok()?;
        let matches = |record: &&usize| {
            let of = &model.records()[**record];
            of.number == number && model.shards()[of.shard].id == shard
        };
        let drops = &self.history.claims[claim].drops;
        let found = drops.keys().find(matches).copied();
        let lost = found.map_or(0, |record| drops[&record].0);
        if dead_letter["connections"].as_u64() != Some(lost) || lost == 0 {
            let details = format!(
                "{lost} messages of {number} were dropped, but its dead letter is {dead_letter}"
            );
            self.report_violation(model, "dead letters complete", details);
        }
        found.map(|record| (claim, record))
    }

    /// Handles a dead letter that arrives.
    fn receive_dead_letter(
        &mut self,
        model: &Model,
        claim: usize,
        record: usize,
    ) -> Result<(), DeadLetterErrorKind> {
        let (is_received, response) = match active(self.faults.queue, model.now()) {
            Some(kind) => (false, Err(kind)),
            None if !self.chance(self.faults.chances.dead_letters) => (true, Ok(())),
            None => match self.rng.u8(..4) {
                0 => (false, Err(DeadLetterErrorKind::TooLarge)),
                1 => (true, Err(DeadLetterErrorKind::Unavailable)),
                _ => (false, Err(DeadLetterErrorKind::Unavailable)),
            },
        };
        let label = match (is_received, response) {
            (true, Ok(())) => "dead letter sent",
            (true, Err(_)) => "dead letter sent, response lost",
            (false, Err(DeadLetterErrorKind::TooLarge)) => "dead letter rejected as too large",
            (false, _) => "dead letter not sent",
        };
        self.counts.add(label);
        self.trace_line(model, || format!("claim {claim}, record {record}: {label}"));
        let claim = &mut self.history.claims[claim];
        if is_received {
            claim.dead_letters.insert(record);
        }
        response
    }

    fn record_dead_letter_response(&mut self, model: &Model, claim: usize, is_sent: bool) {
        let failing_since = &mut self.history.claims[claim].dead_letters_fail_since;
        match is_sent {
            true => *failing_since = None,
            false => *failing_since = Some(failing_since.unwrap_or(model.now())),
        }
    }

    /// Checks a dead letter that a worker reports as lost: it, or others, were retried for long
    /// enough.
    pub fn check_dead_letter_lost(&mut self, model: &Model, process: usize, number: u128) {
        let Some(claim) = self.history.processes[process].claim else { return };
        let of = &mut self.history.claims[claim];
        let matches = |(record, _): &(&usize, &(u64, u64))| {
            model.records()[**record].number == number && !of.dead_letters.contains(*record)
        };
        // One without a response may have arrived.
        let Some((&record, &(_, dropped_at))) = of.drops.iter().find(matches) else { return };
        let since = of.dead_letters_fail_since.map_or(dropped_at, |since| since.min(dropped_at));
        of.dead_letters.insert(record);
        self.counts.add("dead letter lost");
        self.trace_line(model, || {
            format!("worker-{process}: the dead letter of record {record} is lost")
        });
        if since + RETRY_PERIOD_MS > model.now() {
            let details = format!("the dead letter of record {record} was dropped too early");
            self.report_violation(model, "dead letters complete", details);
        }
    }
}

impl DeadLetterQueue for Boundary {
    fn arn(&self) -> &str {
        QUEUE
    }

    fn send<'a>(
        &'a self,
        dead_letter: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>> {
        let process = self.process.number;
        let checked =
            self.world.with(|model, state| state.check_dead_letter(model, process, dead_letter));
        let failed = |kind| DeadLetterError { kind, source: None };
        Box::pin(async move {
            let Some((claim, record)) = checked else {
                return Err(failed(DeadLetterErrorKind::Unavailable));
            };
            let receive = move |model: &Model, state: &mut State| {
                state.receive_dead_letter(model, claim, record)
            };
            let response = Self::write(self, Call::SendDeadLetter, receive).await;
            self.world.with(|model, state| {
                state.record_dead_letter_response(model, claim, response.is_ok());
            });
            response.map_err(failed)
        })
    }
}
