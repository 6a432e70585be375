//! Writes what was applied into the notifier's status, only where it says something new, and an Event
//! for each gap, and for records on which expressions failed.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use kube_runtime::controller::Action;
use serde_json::json;
use tokio::time::timeout;

use super::apply::Applied;
use super::told::Happened;
use crate::api::{
    ConditionInput, ReadyState, Reason, StreamNotifier, StreamNotifierStatus, build_conditions,
    data_gap_remaining,
};
use crate::controller::{Context, ERROR_REQUEUE, ReconcileError};
use crate::telemetry::{Component, CountedEvent, HealthSnapshot, Phase, Problem, event_failed};
use crate::worker::{NotifierId, Revision};

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// Writes the status, if it is another than before, and says when to look at it again.
pub async fn update(
    notifier: &StreamNotifier,
    id: &NotifierId,
    revision: &Revision,
    applied: &Applied,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let Some(input) = summarize(applied) else {
        context.told.forget(id);
        context.factory.metrics.forget_conditions(&id.namespace, &id.name);
        return Ok(Action::await_change());
    };
    let (told, happened) = (context.told.happened(id, revision), applied.happened());
    let picture = applied.picture();
    let new_gap = picture.and_then(|picture| new_event_note(&picture.gap, told.gaps));
    let new_invalid = picture.and_then(|picture| new_event_note(&picture.invalid, told.invalid));
    let stored = notifier.status.clone().unwrap_or_default();
    let before = context.told.conditions(id, revision).unwrap_or(stored.conditions.clone());
    let generation = notifier.metadata.generation;
    let now = truncate_to_seconds(Timestamp::now());
    let conditions = build_conditions(&before, generation, &input, new_gap.clone(), now);
    // Also where the status cannot be written.
    context.factory.metrics.set_conditions(&id.namespace, &id.name, |type_| {
        let present = conditions.iter().find(|condition| condition.type_ == type_);
        present.map_or("False", |condition| &condition.status)
    });
    let status = StreamNotifierStatus {
        observed_generation: generation,
        conditions: conditions.clone(),
        stream_arn: applied.stream_arn(),
    };
    if status != stored && !write(notifier, &status, context).await? {
        context.factory.metrics.forget_conditions(&id.namespace, &id.name);
        // Once the watch knows that too, its worker ends: one may have begun since it was told.
        return Ok(Action::requeue(ERROR_REQUEUE));
    }
    let remaining = data_gap_remaining(&conditions, now).filter(|left| !left.is_zero());
    let again = remaining.map_or_else(Action::await_change, Action::requeue);
    context.told.wrote(id, revision, conditions, happened);
    for (reason, note) in [(Reason::DataGap, new_gap), (Reason::InvalidRecord, new_invalid)] {
        if let Some(note) = note
            && let Err(error) = context.events.publish_warning(notifier, reason, &note).await
        {
            event_failed(&id.namespace, &id.name, &error);
        }
    }
    Ok(again)
}

/// Writes the status, unless the notifier is gone.
async fn write(
    notifier: &StreamNotifier,
    status: &StreamNotifierStatus,
    context: &Context,
) -> Result<bool, ReconcileError> {
    let namespace = notifier.namespace().unwrap_or_default();
    let api: Api<StreamNotifier> = Api::namespaced(context.client.clone(), &namespace);
    // With its uid, so that a later resource of the same name never gets it.
    let uid = &notifier.metadata.uid;
    let mut patch = json!({ "metadata": { "uid": uid }, "status": status });
    if status.stream_arn.is_none() {
        // A merge leaves alone what is not there.
        patch["status"]["streamArn"] = json!(null);
    }
    let (name, params) = (notifier.name_any(), PatchParams::default());
    let patch = Patch::Merge(patch);
    let written = api.patch_status(&name, &params, &patch);
    match timeout(WRITE_TIMEOUT, written).await.map_err(ReconcileError::Timeout)? {
        Ok(_) => Ok(true),
        // Deleted, or made anew, meanwhile.
        Err(kube::Error::Api(gone)) if matches!(gone.code, 404 | 409) => Ok(false),
        Err(error) => Err(ReconcileError::Status(error)),
    }
}

/// As the API server stores it: what is compared with that must not differ by a fraction.
fn truncate_to_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

impl Applied {
    fn picture(&self) -> Option<&HealthSnapshot> {
        match self {
            Self::Running { picture, .. } => Some(picture),
            Self::Invalid(_) | Self::Suspended | Self::OwnedElsewhere => None,
        }
    }

    fn happened(&self) -> Happened {
        self.picture().map(Happened::from).unwrap_or_default()
    }

    /// The ARN of the stream that is read.
    fn stream_arn(&self) -> Option<String> {
        let Self::Running { picture, table } = self else {
            return None;
        };
        let stream = picture.stream.as_ref()?;
        Some(format!("{table}/stream/{}", stream.as_str()))
    }
}

/// What has happened since the last time that was told.
fn new_event_note(happening: &Option<CountedEvent>, told: u64) -> Option<String> {
    let happening = happening.as_ref().filter(|happening| happening.count != told)?;
    Some(truncate(&happening.message))
}

/// What the conditions are made from, or `None` if another operator writes them.
fn summarize(applied: &Applied) -> Option<ConditionInput> {
    let (ready, reason, message) = match applied {
        Applied::Invalid(invalid) => (ReadyState::Stalled, Reason::Invalid, invalid.to_string()),
        Applied::Suspended => (
            ReadyState::Ready,
            Reason::Suspended,
            "nothing is read: suspend is true; set it to false to continue from the checkpoint"
                .to_owned(),
        ),
        Applied::Running { picture, .. } => return Some(summarize_worker(picture)),
        Applied::OwnedElsewhere => return None,
    };
    Some(ConditionInput { ready, reason, message, degraded: None })
}

fn summarize_worker(picture: &HealthSnapshot) -> ConditionInput {
    let degraded = picture.warnings.values().next();
    let degraded = degraded.map(|first| (first.reason, join_messages(&picture.warnings)));
    let Some(first) = picture.problems.values().next() else {
        let (ready, reason, message) = match picture.phase {
            Phase::Reading => (ReadyState::Ready, Reason::Reading, "every open shard is read"),
            Phase::HaltedOnGap => {
                let message = picture.gap.as_ref().map_or("records were lost", |gap| &gap.message);
                (ReadyState::Stalled, Reason::DataGap, message)
            }
            Phase::Starting | Phase::CheckpointTakenOver => (
                ReadyState::Starting,
                Reason::Starting,
                "open shards of the stream are being opened",
            ),
        };
        return ConditionInput { ready, reason, message: truncate(message), degraded };
    };
    let stalled = picture.problems.values().any(|trouble| trouble.stalled);
    let ready = if stalled { ReadyState::Stalled } else { ReadyState::Retrying };
    // A problem that needs a person comes before one that does not.
    let first = picture.problems.values().find(|trouble| trouble.stalled).unwrap_or(first);
    let message = join_messages(&picture.problems);
    ConditionInput { ready, reason: first.reason, message, degraded }
}

fn join_messages(troubles: &BTreeMap<Component, Problem>) -> String {
    let mut messages: Vec<_> = troubles.values().map(|trouble| &*trouble.message).collect();
    messages.dedup();
    truncate(&messages.join(" | "))
}

/// A condition takes 32,768 bytes, and a stream may have thousands of shards with a problem.
fn truncate(message: &str) -> String {
    message.chars().take(1024).collect()
}
