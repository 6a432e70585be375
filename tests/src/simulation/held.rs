//! Posts that are held while rights or endpoint are wrong: once one gets through, the others leave at
//! once, not one after the other.

use std::collections::BTreeMap;

use stream_notifier::delivery::Answer;

use super::gateway::Post;
use super::world::State;
use crate::simulated::Model;

/// A message that was held is tried again within so long, and waits at the gate from then on.
const AT_THE_GATE: u64 = 15_000;

/// So long after the gate opened nobody waits there any more, in milliseconds.
const GONE_AFTER: u64 = 4_000;

/// Who is held under a claim.
#[derive(Debug, Default)]
pub struct Held {
    /// By connection, since when.
    since: BTreeMap<usize, u64>,
    /// When the first post got through, if none was held since.
    opened_at: Option<u64>,
}

impl Held {
    /// A post of a connection leaves, or its message is given up.
    pub fn leaves(&mut self, connection: usize) {
        self.since.remove(&connection);
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

    /// A connection that should have been posted to since the gate opened.
    fn forgotten(&self, now: u64) -> Option<usize> {
        let opened_at = self.opened_at.filter(|at| at + GONE_AFTER < now)?;
        let waited = |(_, since): &(&usize, &u64)| **since + AT_THE_GATE < opened_at;
        self.since.iter().find(waited).map(|(connection, _)| *connection)
    }
}

impl State {
    /// A worker has an answer: whoever was held before has left since, or is forgotten.
    pub fn check_held(&mut self, model: &Model, life: usize, post: Post, answer: &Answer) {
        let Post { claim, connection, .. } = post;
        let is_disturbed = {
            let life = &self.history.lives[life];
            life.is_paused || life.paused_at + AT_THE_GATE > model.now()
        };
        let held = &mut self.history.claims[claim].held;
        held.answered(connection, answer, model.now());
        let forgotten = held.forgotten(model.now()).filter(|_| !is_disturbed);
        if let Some(connection) = forgotten {
            let how =
                format!("claim {claim}: conn{connection:02} is not told that the gate is open");
            self.break_guarantee(model, "liveness", how);
        }
    }
}
