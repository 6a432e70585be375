//! The dead-letter queue: letters that are refused, get lost, or are taken and their answers get
//! lost. A letter is of a record of which something was lost, and says how much.

use futures::future::BoxFuture;
use stream_notifier::delivery::{DeadLetterError, DeadLetterErrorKind, DeadLetterQueue};

use super::boundary::Outside;
use super::faults::now;
use super::worker_process::Call;
use super::world::State;
use crate::streams_model::Model;

const QUEUE: &str = "arn:aws:sqs:eu-west-1:123456789012:letters";

/// How long a letter is tried, in milliseconds.
const LONGEST_TRY: u64 = 60_000;

impl State {
    /// Whether a letter of this record is wanted, and was neither sent nor said to be lost.
    pub fn lacks_letter(&self, claim: usize, record: usize) -> bool {
        let claim = &self.history.claims[claim];
        self.has_queue && claim.drops.contains_key(&record) && !claim.letters.contains(&record)
    }

    /// Which record a letter is of; `None` if it is none that could be, which is told.
    fn letter(&mut self, model: &Model, life: usize, text: &str) -> Option<(usize, usize)> {
        let claim = self.history.lives[life].claim?;
        let letter: serde_json::Value = serde_json::from_str(text).ok()?;
        let shard = letter["shardId"].as_str()?;
        let number: u128 = letter["record"]["dynamodb"]["SequenceNumber"].as_str()?.parse().ok()?;
        let is_it = |record: &&usize| {
            let of = &model.records()[**record];
            of.number == number && model.shards()[of.shard].id == shard
        };
        let drops = &self.history.claims[claim].drops;
        let found = drops.keys().find(is_it).copied();
        let lost = found.map_or(0, |record| drops[&record].0);
        if letter["connections"].as_u64() != Some(lost) || lost == 0 {
            let how = format!("{lost} messages of {number} were lost, and its letter is {letter}");
            self.break_guarantee(model, "letters say what was lost", how);
        }
        found.map(|record| (claim, record))
    }

    /// A letter arrives.
    fn take_letter(
        &mut self,
        model: &Model,
        claim: usize,
        record: usize,
    ) -> Result<(), DeadLetterErrorKind> {
        let fate = match now(self.faults.queue, model.now()) {
            Some(kind) => (false, Err(kind)),
            None if !self.chance(self.faults.chances.letters) => (true, Ok(())),
            None => match self.rng.u8(..4) {
                0 => (false, Err(DeadLetterErrorKind::TooLarge)),
                1 => (true, Err(DeadLetterErrorKind::Unavailable)),
                _ => (false, Err(DeadLetterErrorKind::Unavailable)),
            },
        };
        let (is_taken, answer) = fate;
        let word = match fate {
            (true, Ok(())) => "dead letter sent",
            (true, Err(_)) => "dead letter sent, answer lost",
            (false, Err(DeadLetterErrorKind::TooLarge)) => "dead letter refused as too large",
            (false, _) => "dead letter not taken",
        };
        self.counts.add(word);
        self.note(model, || format!("claim {claim}, record {record}: {word}"));
        let of = &mut self.history.claims[claim];
        if is_taken {
            of.letters.insert(record);
        }
        answer
    }

    /// A worker has the answer to a letter.
    fn letter_answered(&mut self, model: &Model, claim: usize, is_sent: bool) {
        let failing = &mut self.history.claims[claim].letters_fail_since;
        match is_sent {
            true => *failing = None,
            false => *failing = Some(failing.unwrap_or(model.now())),
        }
    }

    /// A worker gives a letter up and says so: it, or others, were tried for long enough.
    pub fn check_letter_lost(&mut self, model: &Model, life: usize, number: u128) {
        let Some(claim) = self.history.lives[life].claim else { return };
        let of = &mut self.history.claims[claim];
        let is_it = |(record, _): &(&usize, &(u64, u64))| {
            model.records()[**record].number == number && !of.letters.contains(*record)
        };
        // One whose answer was lost has arrived.
        let Some((&record, &(_, dropped_at))) = of.drops.iter().find(is_it) else { return };
        let since = of.letters_fail_since.map_or(dropped_at, |since| since.min(dropped_at));
        of.letters.insert(record);
        self.counts.add("dead letter lost");
        self.note(model, || format!("worker-{life}: the letter of record {record} is lost"));
        if since + LONGEST_TRY > model.now() {
            let how = format!("the letter of record {record} was given up too soon");
            self.break_guarantee(model, "letters say what was lost", how);
        }
    }
}

impl DeadLetterQueue for Outside {
    fn arn(&self) -> &str {
        QUEUE
    }

    fn send<'a>(
        &'a self,
        letter: &'a str,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, Result<(), DeadLetterError>> {
        let life = self.life.number;
        let of = self.world.with(|model, state| state.letter(model, life, letter));
        let failed = |kind| DeadLetterError { kind, source: None };
        Box::pin(async move {
            let Some((claim, record)) = of else {
                return Err(failed(DeadLetterErrorKind::Unavailable));
            };
            let take =
                move |model: &Model, state: &mut State| state.take_letter(model, claim, record);
            let answer = Self::send(self, Call::SendLetter, take).await;
            self.world.with(|model, state| {
                state.letter_answered(model, claim, answer.is_ok());
            });
            answer.map_err(failed)
        })
    }
}
