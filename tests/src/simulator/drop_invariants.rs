//! What may be given up, and when: every loss is told with its reason, and each reason is one that the
//! policy knows and that this message had.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stream_notifier::delivery::{PostResponse, SlowClientAction};

use super::gateway::Post;
use super::history::{Begun, Claim};
use super::world::State;
use crate::streams_model::Model;

/// A connection that has not taken a message for so long is stuck, in milliseconds.
const PATIENCE: u64 = 1_000;

/// A client is disconnected once so many posts in a row found its buffer full.
const TOO_SLOW: u32 = 3;

/// So many connections that are throttled within a second are the account's trouble, wherever the
/// second begins, if so many answers are no more than ten times five.
const SURELY_THROTTLED: usize = 9;
const SURELY_FEW: usize = 50;

/// It is over, and a connection that is throttled is slow by itself, no sooner than so many others
/// got theirs.
const SURELY_TOO_FEW: u64 = 4;

/// A connection that was throttled is nothing special after so long, in milliseconds.
const SUSPECT_FOR: u64 = 60_000;

/// One that did not take a message is not waited for, for so long.
const TROUBLED: u64 = 10_000;

/// Nor one whose posts take longer than this, mostly, and four times as long as others'.
const A_LITTLE: Duration = Duration::from_millis(250);

/// One that is gone is asked again for so long after each answer.
const ASKED_AGAIN: u64 = 4_000;

/// What the last answers of a connection say of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manners {
    /// When a post was in vain last.
    troubled_at: Option<u64>,
    /// When an answer came last.
    answered_at: u64,
    /// How long the last posts took, mostly, and at the most.
    takes: Duration,
    /// How often in a row its buffer was full; once, if it was the account's trouble for sure.
    throttled: u32,
    /// How much others had got when that began.
    delivered: u64,
    /// When the last post began that has an answer.
    posted_at: u64,
    /// Whether it is being disconnected: it gets nothing until that has an answer too.
    is_closing: bool,
    /// Whether its last answer was that it is gone.
    is_gone: bool,
}

impl Manners {
    /// Whether it is asked once more whether it is gone.
    pub fn is_asked_again(&self, now: u64) -> bool {
        self.is_gone && now - self.answered_at <= ASKED_AGAIN
    }

    fn answered(&mut self, began: u64, now: u64) {
        self.takes = (self.takes * 3 + Duration::from_millis(now - began + 1)) / 4;
        self.answered_at = now;
    }
}

/// The answers to a life, and what they surely say of the account and the endpoint.
#[derive(Debug, Default)]
pub struct Answers {
    /// Whether the last one that says so says that rights or endpoint are wrong.
    is_held: bool,
    /// How many were no 429.
    good: u64,
    /// The last ones: when, how many were good before, and whose it was if it counts for sure.
    last: Vec<(u64, u64, Option<usize>)>,
    suspects: BTreeMap<usize, Suspect>,
    /// When the account was throttled last for sure, and how many answers were good a second before.
    throttled: Option<(u64, u64)>,
}

/// A connection that was throttled.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    /// When it was last.
    at: u64,
    /// How many answers were good when it first was.
    good: u64,
    /// When it last gave another answer.
    good_at: u64,
}

impl Answers {
    /// Notes an answer; whether it is a 429 that is the account's trouble for sure.
    fn note(&mut self, connection: usize, is_throttled: bool, now: u64) -> bool {
        let good = self.good;
        self.good += u64::from(!is_throttled);
        self.last.retain(|(at, ..)| at + 2_000 > now);
        let counts = is_throttled && self.counts(connection, now);
        self.last.push((now, good, counts.then_some(connection)));
        if !is_throttled {
            self.suspects.entry(connection).and_modify(|suspect| suspect.good_at = now);
            return false;
        }
        let lately = self.last.iter().filter(|(at, ..)| at + 1_000 > now);
        let many: BTreeSet<_> = lately.clone().filter_map(|(.., whose)| *whose).collect();
        if many.len() >= SURELY_THROTTLED && self.last.len() <= SURELY_FEW {
            self.throttled = lately.map(|(_, good, _)| (now, *good)).next();
        }
        self.throttled
            .is_some_and(|(at, good)| now < at + 1_000 || self.good <= good + SURELY_TOO_FEW)
    }

    /// Whether a 429 counts for sure: others get nothing since its connection was throttled first, and
    /// it is the connection's first answer in its second.
    fn counts(&mut self, connection: usize, now: u64) -> bool {
        let is_known = |suspect: &&mut Suspect| now <= suspect.at + SUSPECT_FOR;
        let Some(suspect) = self.suspects.get_mut(&connection).filter(is_known) else {
            let suspect = Suspect { at: now, good: self.good, good_at: 0 };
            self.suspects.insert(connection, suspect);
            return true;
        };
        suspect.at = now;
        self.good <= suspect.good + SURELY_TOO_FEW && suspect.good_at + 1_000 <= now
    }
}

/// A message that a worker says to be given up.
#[derive(Clone, Copy, Debug)]
struct Loss<'a> {
    claim: usize,
    record: usize,
    connection: usize,
    why: &'a str,
}

/// What a loss is counted as.
fn word(why: &str) -> &'static str {
    match why {
        "expired" => "message expired",
        "attempts_exhausted" => "message given up after its attempts",
        "superseded" => "message superseded",
        "overflow" => "message overflowed",
        "disconnected" => "message to a client that was disconnected",
        _ => "message given up",
    }
}

impl State {
    /// A worker has the answer to a post that it began at some time.
    pub fn answered(
        &mut self,
        model: &Model,
        life: usize,
        post: Post,
        began: u64,
        answer: &PostResponse,
    ) {
        let (Post { claim, connection, record }, now) = (post, model.now());
        let Begun { answers, .. } = &mut self.history.lives[life];
        let claim = &mut self.history.claims[claim];
        claim.posting.remove(&connection);
        let manners = claim.manners.entry(connection).or_default();
        let is_throttled = matches!(answer, PostResponse::Status { status: 429, .. });
        let of_all = answers.note(connection, is_throttled, now);
        if of_all {
            self.counts.add("account throttled");
        }
        manners.posted_at = began;
        manners.answered(began, now);
        manners.is_gone = matches!(answer, PostResponse::Status { status: 410, .. });
        match answer {
            PostResponse::Status { status: 429, .. } => {
                if manners.throttled == 0 {
                    manners.delivered = claim.delivered;
                }
                manners.throttled = if of_all { 1 } else { manners.throttled + 1 };
                manners.troubled_at = Some(now);
                *claim.tried.entry((record, connection)).or_default() += u32::from(!of_all);
            }
            PostResponse::NoResponse | PostResponse::Status { status: 500..=599, .. } => {
                manners.troubled_at = Some(now);
                *claim.tried.entry((record, connection)).or_default() += 1;
            }
            PostResponse::Status { status: 200, .. } => {
                manners.throttled = 0;
                claim.delivered += 1;
                answers.is_held = false;
            }
            PostResponse::Status { status: 410, .. } => {
                manners.throttled = 0;
                manners.troubled_at = Some(now);
                answers.is_held = false;
            }
            _ => answers.is_held = true,
        }
    }

    /// A worker has tried to close a connection. It is not done with the post before.
    pub fn closed(&mut self, model: &Model, life: usize, connection: usize) {
        let Some(claim) = self.history.lives[life].claim else { return };
        let manners = self.history.claims[claim].manners.entry(connection).or_default();
        manners.takes += Duration::from_millis(model.now() - manners.answered_at) / 4;
        manners.troubled_at = Some(model.now());
        manners.is_closing = false;
    }

    /// A worker gives a message up and says so.
    pub fn check_drop(
        &mut self,
        model: &Model,
        life: usize,
        connection: usize,
        number: u128,
        why: &str,
    ) {
        let State { history, .. } = self;
        let Some(claim) = history.lives[life].claim else { return };
        let of = &history.claims[claim];
        let read = of.read_at.keys().find(|record| {
            model.records()[**record].number == number
                && !of.settled.contains(&(**record, connection))
        });
        let Some(&record) = read else {
            let how = format!("worker-{life} gives up {number}, which it has not read");
            return self.break_guarantee(model, "none lost", how);
        };
        let loss = Loss { claim, record, connection, why };
        let told = format!("record {record} to conn{connection:02} is given up as {why}");
        self.note(model, || format!("worker-{life}: {told}"));
        self.counts.add(word(why));
        if let Err(problem) = self.is_allowed(model, loss) {
            self.break_guarantee(model, "none lost", format!("{told}: {problem}"));
        }
        let State { history, .. } = self;
        let of = &mut history.claims[claim];
        of.settled.insert((record, connection));
        let (times, last) = of.drops.entry(record).or_default();
        (*times, *last) = (*times + 1, model.now());
        if why == "expired" {
            of.manners.entry(connection).or_default().troubled_at = Some(model.now());
        }
        history.dropped.insert((record, connection));
        *history.told.entry(why.to_owned()).or_default() += 1;
    }

    /// Whether a message may be given up for this reason.
    fn is_allowed(&self, model: &Model, loss: Loss<'_>) -> Result<(), String> {
        let Loss { claim, record, connection, why } = loss;
        let (policy, claim) = (&self.policy, &self.history.claims[claim]);
        let manners = claim.manners.get(&connection).copied().unwrap_or_default();
        if claim.posting.get(&connection).is_some_and(|(posted, _)| *posted == record) {
            return Err("it is under way".to_owned());
        }
        let is_over = || self.is_over(model, claim, connection);
        match why {
            // One that stood still while another took over has not heard that messages were held.
            "expired" if loss.claim + 1 < self.history.claims.len() => Ok(()),
            "expired" => {
                let (read_at, now) = (claim.read_at[&record], model.now());
                // Nor has one that stood still by itself: its messages grew old.
                let tried = match self.history.lives[claim.life].paused_at < read_at {
                    true => self.history.unheld(read_at, now),
                    false => now - read_at,
                };
                let longest = policy.max_age.as_millis() as u64;
                (tried >= longest).then_some(()).ok_or_else(|| format!("after {tried} ms"))
            }
            "attempts_exhausted" => {
                let tried = claim.tried.get(&(record, connection)).copied().unwrap_or_default();
                let most = policy.max_attempts;
                let is_enough = most.is_some_and(|most| tried >= most);
                is_enough.then_some(()).ok_or_else(|| format!("after {tried}, not {most:?}"))
            }
            "superseded" => {
                let key = &model.records()[record].key;
                let is_newer = |it: &&usize| **it > record && model.records()[**it].key == *key;
                if !claim.read_at.keys().any(|it| is_newer(&it)) {
                    return Err("there is no newer one".to_owned());
                }
                let is_slow = policy.slow_client == SlowClientAction::Drop && manners.throttled > 0;
                if is_slow { Ok(()) } else { is_over() }
            }
            "overflow" => is_over(),
            "disconnected" => {
                let is_it = claim.disconnected.contains(&connection);
                is_it.then_some(()).ok_or_else(|| "it was not disconnected".to_owned())
            }
            _ => Err("there is no such reason here".to_owned()),
        }
    }

    /// Whether more waits for a connection than may, and it takes none.
    fn is_over(&self, model: &Model, claim: &Claim, connection: usize) -> Result<(), String> {
        let life = &self.history.lives[claim.life];
        if life.answers.is_held {
            return Err("its posts are held".to_owned());
        }
        let posting = claim.posting.get(&connection);
        let manners = claim.manners.get(&connection).copied().unwrap_or_default();
        let closing_since = manners.is_closing.then_some(manners.posted_at);
        let since = posting.map(|(_, since)| *since).or(closing_since);
        let is_troubled = manners.troubled_at.is_some_and(|at| model.now() < at + TROUBLED);
        // What was about to leave when it stopped in its tracks was not seen to leave.
        let stood_still = life.is_paused || life.paused_at + PATIENCE > model.now();
        if !is_troubled
            && !stood_still
            && manners.takes <= A_LITTLE
            && since.is_none_or(|since| since + PATIENCE > model.now())
        {
            return Err("its connection takes what it gets".to_owned());
        }
        let group = format!("target_sk#{}", self.connections[connection].group);
        let may_wait = |record: &&usize| {
            model.records()[**record].key.sk == group
                && self.history.is_due(model, **record)
                && (!claim.settled.contains(&(**record, connection))
                    || posting.is_some_and(|(posted, _)| posted == *record))
        };
        let waiting = claim.read_at.keys().filter(may_wait).count();
        let most = self.bounds.connection_kib as usize;
        // Every message is smaller than one KiB, which is what it counts for.
        (waiting > most).then_some(()).ok_or_else(|| format!("{waiting} wait at the most"))
    }

    /// A worker disconnects a client: the policy says so, its buffer was full again and again, and
    /// others got their messages meanwhile.
    pub fn check_disconnection(&mut self, model: &Model, life: usize, connection: usize) {
        let Some(claim) = self.history.lives[life].claim else { return };
        let claim = &mut self.history.claims[claim];
        claim.disconnected.insert(connection);
        let manners = claim.manners.entry(connection).or_default();
        manners.is_closing = true;
        let is_slow = manners.throttled >= TOO_SLOW && claim.delivered > manners.delivered;
        if self.policy.slow_client != SlowClientAction::Disconnect || !is_slow {
            let how = format!("conn{connection:02} is disconnected: {manners:?}");
            self.break_guarantee(model, "none lost", how);
        }
    }
}

/// How many losses were told, by the reason.
pub type Told = BTreeMap<String, u64>;
