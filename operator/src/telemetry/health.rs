//! Health of one notifier: the current problem and warning of each component.
//!
//! A component sets its problem when it fails and clears it when it works again. Watchers see every
//! change, and the controller turns the snapshot into conditions.

use std::collections::BTreeMap;
use std::fmt::Display;

use tokio::sync::watch;

use crate::api::Reason;
use crate::model::{ShardId, StreamLabel};

/// Component of a notifier that can have a problem.
///
/// The order is from cause to effect, because the first problem gives `Ready` its reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The worker as a whole.
    Worker,
    /// The checkpoint and its claim.
    Checkpoint,
    /// The listing of the stream.
    Stream,
    /// The status of the stream, such as disabled or replaced.
    StreamStatus,
    /// Lookups in the connections table.
    Connections,
    /// Posts to the WebSocket API.
    Gateway,
    /// The guard that stops deletions if every connection seems closed.
    RowDeletionGuard,
    /// The dead-letter queue.
    DeadLetters,
    /// The disconnection of slow clients.
    Disconnection,
    /// The deletion of rows of closed connections.
    RowDeletion,
    /// Rows without a usable connection id.
    ConnectionIds,
    /// Rows with an invalid TTL.
    RowTtl,
    /// One shard.
    Shard(ShardId),
}

/// Problem of a component, as a condition reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Reason of the condition.
    pub reason: Reason,
    /// `<what failed> on <resource>: <cause>; <action>`, without counters, times or item values.
    pub message: String,
    /// Whether the problem lasts until a person changes the resource, or a resource that it names.
    pub stalled: bool,
}

impl Problem {
    /// Creates a problem that is stalled if its reason is.
    pub fn new(reason: Reason, message: String) -> Self {
        Self { reason, message, stalled: reason.is_stalled() }
    }

    /// Creates the problem of a request without AWS credentials.
    ///
    /// `request` is `<action> on <resource>`. The text of `cause` says why no provider has any.
    pub fn no_credentials(request: &str, cause: Option<impl Display>) -> Self {
        let cause = cause.map_or_else(String::new, |cause| format!(": {cause}"));
        let message = format!(
            "{request} failed: no AWS credentials{cause}; check the IAM role of the operator's ServiceAccount, or AWS_PROFILE"
        );
        Self::new(Reason::NoCredentials, message)
    }

    /// Creates the problem of a request whose connection is not trusted.
    ///
    /// `request` is `<action> on <resource>`.
    pub fn untrusted_certificate(request: &str) -> Self {
        let message = format!(
            "{request} failed: the issuer of the certificate is not trusted; set AWS_CA_BUNDLE to a PEM file with the issuer's root certificate"
        );
        Self::new(Reason::UntrustedCertificate, message)
    }
}

/// Health of a notifier at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthSnapshot {
    /// Phase of the worker.
    pub phase: Phase,
    /// Problems that stop or delay delivery.
    pub problems: BTreeMap<Component, Problem>,
    /// Problems that need a fix but do not stop delivery.
    pub warnings: BTreeMap<Component, Problem>,
    /// The oldest stream with an unfinished shard, or the newest stream if there is none. `None` before reading begins and after it ends.
    pub stream: Option<StreamLabel>,
    /// Data gaps.
    pub gap: Option<CountedEvent>,
    /// Records on which an expression failed.
    pub invalid: Option<CountedEvent>,
}

/// Occurrences of one kind, which the operator reports as Kubernetes Events.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedEvent {
    /// Number of occurrences since the worker was created.
    pub count: u64,
    /// Message of the last one, with the action; no counters, times or item values.
    pub message: String,
}

impl CountedEvent {
    fn next(before: &Option<Self>, message: String) -> Self {
        Self { count: before.as_ref().map_or(0, |before| before.count) + 1, message }
    }
}

/// Phase of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// A shard that was open at the start has not been read yet.
    #[default]
    Starting,
    /// Every shard that was open at the start has been read.
    Reading,
    /// Terminal: another holder claimed the checkpoint.
    CheckpointTakenOver,
    /// Terminal: records were lost, and `onGap` is `Stop`.
    HaltedOnGap,
}

impl Phase {
    fn is_terminal(self) -> bool {
        matches!(self, Self::CheckpointTakenOver | Self::HaltedOnGap)
    }
}

/// Sender of the health of one notifier. Watchers are notified only if a call changes the snapshot.
#[derive(Debug)]
pub struct Health(watch::Sender<HealthSnapshot>);

impl Health {
    /// Creates the health of a notifier that is starting.
    pub fn new() -> (Self, watch::Receiver<HealthSnapshot>) {
        let (sender, receiver) = watch::channel(HealthSnapshot::default());
        (Self(sender), receiver)
    }

    /// Resets everything but the counted events, because the worker starts or restarts.
    pub fn mark_starting(&self) {
        self.0.send_if_modified(|snapshot| {
            let HealthSnapshot { gap, invalid, .. } = snapshot.clone();
            let starting = HealthSnapshot { gap, invalid, ..HealthSnapshot::default() };
            let is_modified = *snapshot != starting;
            *snapshot = starting;
            is_modified
        });
    }

    /// Ends the phase `Starting`, because every shard has been read.
    pub fn mark_reading(&self) {
        self.0.send_if_modified(|snapshot| {
            let is_modified = snapshot.phase == Phase::Starting;
            if is_modified {
                snapshot.phase = Phase::Reading;
            }
            is_modified
        });
    }

    /// Ends the worker with `problem`. Later problems and warnings of its tasks are ignored.
    pub fn mark_checkpoint_taken_over(&self, problem: Problem) {
        let problems = BTreeMap::from([(Component::Worker, problem)]);
        self.0.send_modify(|snapshot| {
            snapshot.phase = Phase::CheckpointTakenOver;
            snapshot.stream = None;
            snapshot.problems = problems;
            snapshot.warnings.clear();
        });
    }

    /// Ends the worker because of a data gap, which [`Self::report_data_gap`] has reported.
    pub fn mark_halted_on_gap(&self) {
        self.0.send_modify(|snapshot| {
            snapshot.phase = Phase::HaltedOnGap;
            snapshot.stream = None;
            snapshot.problems.clear();
            snapshot.warnings.clear();
        });
    }

    /// Reports records that were lost before the operator read them.
    pub fn report_data_gap(&self, message: String) {
        self.0.send_modify(|snapshot| {
            snapshot.gap = Some(CountedEvent::next(&snapshot.gap, message));
        });
    }

    /// Reports a record on which an expression failed. This is no problem of the notifier.
    pub fn report_invalid_record(&self, message: String) {
        self.0.send_modify(|snapshot| {
            snapshot.invalid = Some(CountedEvent::next(&snapshot.invalid, message));
        });
    }

    /// Sets the stream that the worker reads.
    pub fn set_stream(&self, stream: Option<&StreamLabel>) {
        self.0.send_if_modified(|snapshot| {
            let is_modified = snapshot.stream.as_ref() != stream;
            if is_modified {
                snapshot.stream = stream.cloned();
            }
            is_modified
        });
    }

    /// Sets the problem of a component. It replaces the previous one.
    pub fn set_problem(&self, component: Component, problem: Problem) {
        self.0.send_if_modified(|snapshot| {
            let is_modified = !snapshot.phase.is_terminal()
                && snapshot.problems.get(&component) != Some(&problem);
            if is_modified {
                snapshot.problems.insert(component, problem);
            }
            is_modified
        });
    }

    /// Sets the warning of a component that works but needs a fix. It replaces the previous one.
    pub fn set_warning(&self, component: Component, warning: Problem) {
        self.0.send_if_modified(|snapshot| {
            let is_modified = !snapshot.phase.is_terminal()
                && snapshot.warnings.get(&component) != Some(&warning);
            if is_modified {
                snapshot.warnings.insert(component, warning);
            }
            is_modified
        });
    }

    /// Clears the problem and the warning of a component, because it works.
    pub fn clear(&self, component: &Component) {
        self.0.send_if_modified(|snapshot| {
            let (problems, warnings) = (&mut snapshot.problems, &mut snapshot.warnings);
            !snapshot.phase.is_terminal()
                && (problems.remove(component).is_some() | warnings.remove(component).is_some())
        });
    }
}

/// Asserts that a condition message has the form `<failure>: <cause>; <action>`.
///
/// It must begin in lower case and have at most 200 characters, without the names that it inserts.
#[cfg(test)]
pub fn assert_message_form(message: &str, names: &[&str]) {
    let bare = names.iter().fold(message.to_owned(), |text, name| text.replace(name, "x"));
    let (failure, rest) = bare.split_once(": ").unwrap_or_else(|| panic!("no cause: {message}"));
    let (cause, action) = rest.split_once("; ").unwrap_or_else(|| panic!("no action: {message}"));
    assert!(![failure, cause, action].contains(&""), "{message}");
    assert!(failure.starts_with(|c: char| c.is_ascii_lowercase()), "{message}");
    assert!(bare.chars().count() <= 200, "{}: {message}", bare.chars().count());
}
