//! Posts that are held while rights or endpoint are wrong: once one gets through, the others leave at
//! once, not one after the other.

use std::collections::BTreeMap;

use stream_notifier::delivery::Answer;

use super::gateway::Post;
use super::world::State;
use crate::simulated::Model;

/// A message that was held is tried again within so long, and waits at the gate from then on.
const AT_THE_GATE: u64 = 10_500;

/// So long after the gate opened nobody waits there any more, in milliseconds.
const GONE_AFTER: u64 = 300;

/// Who is held under a claim.
#[derive(Debug, Default)]
pub struct Held {
    /// By connection, since when.
    since: BTreeMap<usize, u64>,
    /// When the first post got through, if none was held since.
    opened_at: Option<u64>,
}

impl Held {
    /// A message of a connection is given up.
    pub fn given_up(&mut self, connection: usize) {
        self.since.remove(&connection);
    }

    /// A post leaves; whether it waited at the gate, and when that opened.
    fn leaves(&mut self, connection: usize) -> Option<u64> {
        let since = self.since.remove(&connection)?;
        self.opened_at.filter(|opened_at| since + AT_THE_GATE < *opened_at)
    }

    fn answered(&mut self, connection: usize, answer: &Answer, now: u64) {
        match answer {
            Answer::Status { status: 403, .. } | Answer::Unreachable | Answer::NoCredentials => {
                self.since.insert(connection, now);
                self.opened_at = None;
            }
            Answer::Status { status: 200, .. } if self.opened_at.is_none() => {
                self.opened_at = Some(now);
            }
            _ => {}
        }
    }
}

impl State {
    /// A worker has an answer.
    pub fn note_held(&mut self, model: &Model, post: Post, answer: &Answer) {
        let Post { claim, connection, .. } = post;
        self.history.claims[claim].held.answered(connection, answer, model.now());
    }

    /// A post leaves: if it was held, it leaves as soon as the first one got through.
    pub fn check_release(&mut self, model: &Model, post: Post) {
        let Post { claim, connection, .. } = post;
        let claimed = &mut self.history.claims[claim];
        let opened_at = claimed.held.leaves(connection);
        let life = &self.history.lives[claimed.life];
        let is_disturbed = life.is_paused || life.paused_at + AT_THE_GATE > model.now();
        if opened_at.is_some() {
            self.counts.add("post let go with the gate");
        }
        let late = opened_at.filter(|at| at + GONE_AFTER < model.now() && !is_disturbed);
        if let Some(opened_at) = late {
            let how = format!(
                "claim {claim}: conn{connection:02} leaves the gate that opened at {opened_at}"
            );
            self.break_guarantee(model, "liveness", how);
        }
    }
}
