//! Checks every message that the worker drops, and every client that it disconnects.
//!
//! A drop needs a reason of the policy that is visible outside of the worker. The log and the
//! metrics must report it. These are the reasons that `docs/architecture.md` states:
//!
//! - `expired`: the message is at least `maxRecordAgeSeconds` old. The time in which API Gateway
//!   rejected every post does not count.
//! - `attempts_exhausted`: at least `maxAttempts` posts of the message failed. Those of a throttled
//!   account do not count.
//! - `superseded`: the worker has read a newer message of the item. Either `slowClient` is `Drop`
//!   and the client was throttled since its last message, or the queue overflows.
//! - `overflow`: more than the limit of the connection is queued, the connection is unresponsive,
//!   and API Gateway does not reject posts.
//! - `disconnected`: the worker has disconnected the client. For that, `slowClient` must be
//!   `Disconnect`, and the client had 3 consecutive 429 responses while others received messages.
//! - `too_large`: the message has more than 128 KiB. No simulated message has.

use std::collections::BTreeMap;

use stream_notifier::delivery::SlowClientAction;

use super::history::Claim;
use super::world::State;
use crate::streams_model::Model;

/// Dropped messages by reason.
pub type DropCounts = BTreeMap<String, u64>;

/// A message that a worker reports as dropped.
#[derive(Clone, Copy, Debug)]
struct DroppedMessage<'a> {
    claim: usize,
    record: usize,
    connection: usize,
    reason: &'a str,
}

fn count_label(reason: &str) -> &'static str {
    match reason {
        "expired" => "message dropped: expired",
        "attempts_exhausted" => "message dropped: attempts exhausted",
        "superseded" => "message dropped: superseded",
        "overflow" => "message dropped: overflow",
        "disconnected" => "message dropped: disconnected",
        _ => "message dropped: another reason",
    }
}

impl State {
    /// Checks a drop that a worker reports.
    pub fn check_drop(
        &mut self,
        model: &Model,
        process: usize,
        connection: usize,
        number: u128,
        reason: &str,
    ) {
        let Some(index) = self.history.processes[process].claim else { return };
        let claim = &self.history.claims[index];
        let is_dropped = |record: &&usize| {
            model.records()[**record].number == number
                && !claim.settled.contains(&(**record, connection))
        };
        let Some(&record) = claim.read_at.keys().find(is_dropped) else {
            let details = format!("worker-{process} drops {number}, which it has not read");
            return self.report_violation(model, "no message lost", details);
        };
        let what = format!("record {record} to conn{connection:02} is dropped as {reason}");
        self.trace_line(model, || format!("worker-{process}: {what}"));
        self.counts.add(count_label(reason));
        if let Err(problem) =
            self.check_reason(model, DroppedMessage { claim: index, record, connection, reason })
        {
            self.report_violation(model, "drops need a reason", format!("{what}: {problem}"));
        }
        let claim = &mut self.history.claims[index];
        claim.settled.insert((record, connection));
        let (count, last) = claim.drops.entry(record).or_default();
        (*count, *last) = (*count + 1, model.now());
        if reason == "expired" {
            // It may expire without another post, because the last one failed.
            claim.connections.entry(connection).or_default().record_failure(model.now());
        }
        self.history.dropped.insert((record, connection));
        *self.history.drop_counts.entry(reason.to_owned()).or_default() += 1;
        self.forget_latency_if_queue_is_empty(model, index, connection);
    }

    fn check_reason(&self, model: &Model, message: DroppedMessage<'_>) -> Result<(), String> {
        let DroppedMessage { claim: index, record, connection, reason } = message;
        let claim = &self.history.claims[index];
        if claim.posts_in_flight.get(&connection).is_some_and(|(posted, _)| *posted == record) {
            return Err("its post is in flight".to_owned());
        }
        match reason {
            "expired" => self.check_expired(model, index, record),
            "attempts_exhausted" => {
                let failed = claim.failed_attempts.get(&(record, connection)).copied();
                let (failed, max) = (failed.unwrap_or_default(), self.policy.max_attempts);
                let is_exhausted = max.is_some_and(|max| failed >= max);
                require(is_exhausted, || format!("{failed} posts failed, and the limit is {max:?}"))
            }
            "superseded" => {
                let key = &model.records()[record].key;
                let is_newer = |it: &usize| *it > record && model.records()[*it].key == *key;
                require(claim.read_at.keys().any(is_newer), || "no newer one was read".to_owned())?;
                let history = claim.connections.get(&connection).copied().unwrap_or_default();
                match self.policy.slow_client {
                    SlowClientAction::Drop if history.consecutive_429s > 0 => Ok(()),
                    _ => self.check_overflow(model, claim, connection),
                }
            }
            "overflow" => self.check_overflow(model, claim, connection),
            "disconnected" => require(claim.disconnected.contains(&connection), || {
                "its client was not disconnected".to_owned()
            }),
            "too_large" => Err("it has less than 1 KiB".to_owned()),
            _ => Err("the contract has no such reason".to_owned()),
        }
    }

    /// The worker cannot observe rejections while it is paused, or after another process has taken
    /// its claim over. The time in which posts were rejected then counts.
    fn check_expired(&self, model: &Model, index: usize, record: usize) -> Result<(), String> {
        let claim = &self.history.claims[index];
        let (read_at, now) = (claim.read_at[&record], model.now());
        let has_later_claim = index + 1 < self.history.claims.len();
        let was_paused = self.history.processes[claim.process].paused_at >= read_at;
        let age = match has_later_claim || was_paused {
            true => now - read_at,
            false => self.history.max_age_ms(read_at, now),
        };
        let max = self.policy.max_age.as_millis() as u64;
        require(age >= max, || format!("it is {age} ms old, and the limit is {max} ms"))
    }

    /// Checks that a queue may drop messages: it is over its limit, and its connection is
    /// unresponsive.
    fn check_overflow(
        &self,
        model: &Model,
        claim: &Claim,
        connection: usize,
    ) -> Result<(), String> {
        if self.history.processes[claim.process].endpoint.rejects_posts {
            return Err("posts are held, because API Gateway rejects them".to_owned());
        }
        let history = claim.connections.get(&connection).copied().unwrap_or_default();
        let post_started_at = claim.posts_in_flight.get(&connection).map(|(_, at)| *at);
        require(history.is_unresponsive(post_started_at, model.now()), || {
            "its connection is responsive".to_owned()
        })?;
        let queued = self.max_queued(model, claim, connection);
        // Every message has less than 1 KiB, and counts as 1 KiB.
        let max = self.limits.connection_kib as usize;
        require(queued > max, || format!("at most {queued} KiB are queued, and {max} KiB may be"))
    }

    /// An upper bound for the messages in a connection's queue: those of all records that the claim
    /// has read and that neither it nor the stored checkpoint has settled, and the one in flight.
    pub fn max_queued(&self, model: &Model, claim: &Claim, connection: usize) -> usize {
        let group = format!("target_sk#{}", self.connections[connection].group);
        let in_flight = claim.posts_in_flight.get(&connection).map(|(record, _)| *record);
        // A later claim stores what it has settled itself.
        let is_last = self.history.claims.last().is_some_and(|last| last.epoch == claim.epoch);
        let can_be_queued = |record: &&usize| {
            let of = &model.records()[**record];
            let is_settled = claim.settled.contains(&(**record, connection))
                || is_last && self.history.saved(of.shard).covers(of.number);
            of.key.sk == group
                && self.history.is_due(model, **record)
                && (!is_settled || in_flight == Some(**record))
        };
        claim.read_at.keys().filter(can_be_queued).count()
    }

    /// Checks that a worker disconnects only a slow client, and only with the policy `Disconnect`.
    pub fn check_disconnect(&mut self, model: &Model, process: usize, connection: usize) {
        let Some(claim) = self.history.processes[process].claim else { return };
        let claim = &self.history.claims[claim];
        let history = claim.connections.get(&connection).copied().unwrap_or_default();
        let others_receive = claim.delivered > history.delivered_before_429s;
        if !history.may_be_disconnected(&self.policy) || !others_receive {
            let details = format!("conn{connection:02} is disconnected: {history:?}");
            self.report_violation(model, "drops need a reason", details);
        }
    }
}

fn require(holds: bool, problem: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(problem()) }
}
