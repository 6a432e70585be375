//! What is wrong with one notifier right now, part by part. A part that is in trouble says why, and
//! clears it when it works again.

use std::collections::BTreeMap;

use tokio::sync::watch;

use crate::api::Reason;
use crate::model::{ShardId, StreamLabel};

/// The parts of a notifier that can be in trouble, causes before what they lead to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The worker as a whole.
    Worker,
    /// The checkpoint.
    Checkpoint,
    /// The stream's description.
    Stream,
    /// A stream that gets no more changes.
    StreamStatus,
    /// The connections table.
    Connections,
    /// The WebSocket API.
    Gateway,
    /// Rows that are kept although their connections seem gone.
    RowDeletionGuard,
    /// The dead-letter queue.
    DeadLetters,
    /// The disconnection of clients that do not read.
    Disconnection,
    /// The deletion of rows whose connections are gone.
    RowDeletion,
    /// Rows that say whom they stand for.
    ConnectionIds,
    /// Rows that say when they are out of date.
    RowTtl,
    /// One shard.
    Shard(ShardId),
}

/// Why a part does not do its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: Reason,
    /// `<what failed> on <resource>: <cause>; <action>`, without counters, times or item values.
    pub message: String,
    /// Whether nothing continues until a person changes the resource, or what it names.
    pub stalled: bool,
}

impl Problem {
    /// A problem that is stalled if its reason is.
    pub fn new(reason: Reason, message: String) -> Self {
        Self { reason, message, stalled: reason.is_stalled() }
    }

    /// Problem of a request without AWS credentials; `request` is `<action> on <resource>`.
    pub fn no_credentials(request: &str) -> Self {
        let message = format!(
            "{request} failed: no AWS credentials; give the operator's ServiceAccount an IAM role, or set AWS_PROFILE"
        );
        Self::new(Reason::NoCredentials, message)
    }
}

/// All that is known of a notifier's health.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthSnapshot {
    /// What the worker is at.
    pub phase: Phase,
    /// What is wrong.
    pub problems: BTreeMap<Component, Problem>,
    /// What should be mended although every change goes out.
    pub warnings: BTreeMap<Component, Problem>,
    /// Which stream is read: the oldest that has anything unfinished.
    pub stream: Option<StreamLabel>,
    /// What was lost before it was read.
    pub gap: Option<CountedEvent>,
    /// The change of which nobody could be told, because an expression failed on it.
    pub invalid: Option<CountedEvent>,
}

/// Something that happened, and is over: an Event tells it, whatever is the case now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedEvent {
    /// How often that has happened to this worker.
    pub count: u64,
    /// What happened last and what to do; no counters, times or item values.
    pub message: String,
}

impl CountedEvent {
    fn next(before: &Option<Self>, message: String) -> Self {
        Self { count: before.as_ref().map_or(0, |before| before.count) + 1, message }
    }
}

/// What a worker is at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Not every shard that was open at the start has answered yet.
    #[default]
    Starting,
    /// Every one has.
    Reading,
    /// It has ended, because another holder has the checkpoint.
    CheckpointTakenOver,
    /// It has ended, because records were lost and the spec says to stop then.
    HaltedOnGap,
}

impl Phase {
    fn is_over(self) -> bool {
        matches!(self, Self::CheckpointTakenOver | Self::HaltedOnGap)
    }
}

/// Where parts tell their troubles; watchers see each change.
#[derive(Debug)]
pub struct Health(watch::Sender<HealthSnapshot>);

impl Health {
    /// The health of a notifier that is starting.
    pub fn new() -> (Self, watch::Receiver<HealthSnapshot>) {
        let (sender, receiver) = watch::channel(HealthSnapshot::default());
        (Self(sender), receiver)
    }

    /// The worker begins, or begins anew: what was known no longer counts.
    pub fn starting(&self) {
        self.0.send_if_modified(|picture| {
            // What happened has happened.
            let HealthSnapshot { gap, invalid, .. } = picture.clone();
            let begun = HealthSnapshot { gap, invalid, ..HealthSnapshot::default() };
            let is_news = *picture != begun;
            *picture = begun;
            is_news
        });
    }

    /// Every shard has answered.
    pub fn started(&self) {
        self.0.send_if_modified(|picture| {
            let is_news = picture.phase == Phase::Starting;
            if is_news {
                picture.phase = Phase::Reading;
            }
            is_news
        });
    }

    /// The worker has ended, and this is why. What its tasks still say no longer counts.
    pub fn checkpoint_taken_over(&self, trouble: Problem) {
        let troubles = BTreeMap::from([(Component::Worker, trouble)]);
        self.0.send_modify(|picture| {
            picture.phase = Phase::CheckpointTakenOver;
            picture.stream = None;
            picture.problems = troubles;
            picture.warnings.clear();
        });
    }

    /// The worker has ended because of a gap, which has been told.
    pub fn halted_on_gap(&self) {
        self.0.send_modify(|picture| {
            picture.phase = Phase::HaltedOnGap;
            picture.stream = None;
            picture.problems.clear();
            picture.warnings.clear();
        });
    }

    /// Records were lost before they were read.
    pub fn gap(&self, message: String) {
        self.0.send_modify(|picture| picture.gap = Some(CountedEvent::next(&picture.gap, message)));
    }

    /// An expression failed on a record; nothing is wrong with the notifier because of that.
    pub fn invalid(&self, message: String) {
        self.0.send_modify(|picture| {
            picture.invalid = Some(CountedEvent::next(&picture.invalid, message));
        });
    }

    /// This is the stream that is read now.
    pub fn set_stream(&self, stream: Option<&StreamLabel>) {
        self.0.send_if_modified(|picture| {
            let is_news = picture.stream.as_ref() != stream;
            if is_news {
                picture.stream = stream.cloned();
            }
            is_news
        });
    }

    /// A part is in trouble.
    pub fn set_problem(&self, part: Component, trouble: Problem) {
        self.0.send_if_modified(|picture| {
            let is_news = !picture.phase.is_over() && picture.problems.get(&part) != Some(&trouble);
            if is_news {
                picture.problems.insert(part, trouble);
            }
            is_news
        });
    }

    /// A part does its work, but should be mended.
    pub fn set_warning(&self, part: Component, warning: Problem) {
        self.0.send_if_modified(|picture| {
            let is_news = !picture.phase.is_over() && picture.warnings.get(&part) != Some(&warning);
            if is_news {
                picture.warnings.insert(part, warning);
            }
            is_news
        });
    }

    /// A part is well (again).
    pub fn clear(&self, part: &Component) {
        self.0.send_if_modified(|picture| {
            let (trouble, warning) = (&mut picture.problems, &mut picture.warnings);
            !picture.phase.is_over()
                && (trouble.remove(part).is_some() | warning.remove(part).is_some())
        });
    }
}

/// Asserts the form of a condition message: `<failure>: <cause>; <action>`, lower case, at most 200
/// characters without the names that it inserts.
#[cfg(test)]
pub fn assert_message_form(message: &str, names: &[&str]) {
    let bare = names.iter().fold(message.to_owned(), |text, name| text.replace(name, "x"));
    let (failure, rest) = bare.split_once(": ").unwrap_or_else(|| panic!("no cause: {message}"));
    let (cause, action) = rest.split_once("; ").unwrap_or_else(|| panic!("no action: {message}"));
    assert!(![failure, cause, action].contains(&""), "{message}");
    assert!(failure.starts_with(|c: char| c.is_ascii_lowercase()), "{message}");
    assert!(bare.chars().count() <= 200, "{}: {message}", bare.chars().count());
}
