//! Judges the changes of a page, in order. What is cheap is judged at once; expressions are evaluated
//! in the notifier's turns, some milliseconds at a time.

use std::collections::VecDeque;
use std::time::Duration;
use std::vec;

use tokio::time::Instant;

use super::shared::{Shared, Task};
use crate::notifier::{Notifier, Verdict};
use crate::record::{Change, KeyNames, SequenceNumber};
use crate::telemetry::Counts;

/// How long a turn lasts; the change that is being evaluated then still counts.
const TURN: Duration = Duration::from_millis(2);
/// How many changes are evaluated in a turn, at most.
const MOST_CHANGES: usize = 256;
/// A turn ends once its messages have so many bytes: until they are queued, nothing bounds them.
const MOST_BYTES: usize = 1 << 20;

/// A page of changes that are to be judged.
#[derive(Debug)]
pub struct Page {
    unread: vec::IntoIter<Change>,
    /// What was looked at and is not judged yet.
    waiting: VecDeque<Step>,
}

/// A change that was looked at.
#[derive(Debug)]
enum Step {
    /// Nobody is told up to and with this one, which is counted.
    Passed(SequenceNumber),
    /// The expressions decide.
    Asks(Change),
}

/// A change's number, and the change with what is to be done about it; `None` if that is nothing, and
/// is counted.
pub type Judged = (SequenceNumber, Option<(Verdict, Change)>);

impl Page {
    pub fn new(changes: Vec<Change>) -> Self {
        Self { unread: changes.into_iter(), waiting: VecDeque::new() }
    }

    /// The verdicts on the next changes, at least one; `None` at the end. What comes before the first
    /// of which somebody may be told is noted as read.
    pub async fn judge<S, C, G>(
        &mut self,
        shared: &Shared<C, G>,
        task: &Task<S>,
    ) -> Option<Vec<Judged>> {
        if self.waiting.is_empty() {
            self.look(shared, task);
        }
        if self.waiting.is_empty() {
            return None;
        }
        let (notifier, keys) = (shared.notifier.clone(), task.keys.clone());
        let waiting = std::mem::take(&mut self.waiting);
        let turn = shared.turns.take(move || evaluate(&notifier, &keys, waiting)).await;
        shared.telemetry.evaluated(turn.took);
        self.waiting = turn.waiting;
        Some(turn.judged)
    }

    /// Looks at changes until enough of them ask for a turn.
    fn look<S, C, G>(&mut self, shared: &Shared<C, G>, task: &Task<S>) {
        let mut counts = Counts::default();
        let mut asks = 0;
        for change in self.unread.by_ref() {
            if shared.not_before.is_some_and(|start| change.created < start) {
                counts.old += 1;
            } else if shared.notifier.concerns(&change) {
                self.waiting.push_back(Step::Asks(change));
                asks += 1;
                if asks == MOST_CHANGES {
                    break;
                }
                continue;
            } else {
                counts.skipped += 1;
            }
            let number = change.sequence_number;
            match self.waiting.back_mut() {
                // The last one speaks for those before it.
                Some(Step::Passed(last)) => *last = number,
                _ => self.waiting.push_back(Step::Passed(number)),
            }
        }
        if let Some(Step::Passed(number)) =
            self.waiting.pop_front_if(|step| matches!(step, Step::Passed(_)))
        {
            task.progress.skip(number);
        }
        shared.telemetry.read(&counts);
    }
}

/// What was done in a turn.
struct Turn {
    judged: Vec<Judged>,
    waiting: VecDeque<Step>,
    took: Duration,
}

fn evaluate(notifier: &Notifier, keys: &KeyNames, mut waiting: VecDeque<Step>) -> Turn {
    let begun = Instant::now();
    let mut judged = Vec::with_capacity(waiting.len());
    let mut bytes = 0;
    while bytes < MOST_BYTES
        && begun.elapsed() < TURN
        && let Some(step) = waiting.pop_front()
    {
        match step {
            Step::Passed(number) => judged.push((number, None)),
            Step::Asks(change) => {
                let verdict = notifier.evaluate(keys, &change);
                if let Verdict::Notify(notification) = &verdict {
                    bytes += notification.body.len();
                }
                judged.push((change.sequence_number.clone(), Some((verdict, change))));
            }
        }
    }
    Turn { judged, waiting, took: begun.elapsed() }
}
