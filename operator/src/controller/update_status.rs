//! Writes the status of a notifier if it changed, and publishes Events about data gaps and invalid
//! records.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use kube_runtime::controller::Action;
use serde_json::json;
use tokio::time::timeout;

use super::apply::Applied;
use super::context::Context;
use super::registry::EventCounts;
use crate::api::{
    ConditionInput, ReadyState, Reason, StreamNotifier, StreamNotifierStatus, build_conditions,
    data_gap_remaining,
};
use crate::telemetry::{Component, CountedEvent, HealthSnapshot, Phase, Problem, event_failed};
use crate::worker::{NotifierId, Revision};

const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// The wait before a failed reconcile is retried.
pub const ERROR_REQUEUE: Duration = Duration::from_secs(5);

/// A reconcile failed, and is retried.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server rejected the status.
    #[error(
        "cannot write the status of the notifier; check the API server and the operator's permissions"
    )]
    Status(#[source] kube::Error),
    /// The API server did not respond within 10 s.
    #[error("the API server did not respond within 10 s; check the API server")]
    Timeout(#[source] tokio::time::error::Elapsed),
}

/// Writes the status if it changed, and returns when to reconcile again.
pub async fn update_status(
    notifier: &StreamNotifier,
    id: &NotifierId,
    revision: &Revision,
    applied: &Applied,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let Some(input) = summarize(applied) else {
        context.registry.clear_report(id);
        context.factory.metrics.remove_conditions(&id.namespace, &id.name);
        return Ok(Action::await_change());
    };
    let reported = context.registry.reported_events(id, revision);
    let health = applied.health();
    let events = health.map(EventCounts::from).unwrap_or_default();
    let new_gap = health.and_then(|health| new_event_note(&health.gap, reported.gaps));
    let new_invalid = health.and_then(|health| new_event_note(&health.invalid, reported.invalid));
    let stored = notifier.status.clone().unwrap_or_default();
    let before = context.registry.reported_conditions(id, revision);
    let before = before.unwrap_or(stored.conditions.clone());
    let generation = notifier.metadata.generation;
    let now = truncate_to_seconds(Timestamp::now());
    let conditions = build_conditions(&before, generation, &input, new_gap.clone(), now);
    // The metric must be right even if the status cannot be written.
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
        context.factory.metrics.remove_conditions(&id.namespace, &id.name);
        // The notifier is deleted. Its worker may have started after the watch reported that, so
        // reconcile once more.
        return Ok(Action::requeue(ERROR_REQUEUE));
    }
    let remaining = data_gap_remaining(&conditions, now).filter(|left| !left.is_zero());
    context.registry.set_report(id, revision, conditions, events);
    for (reason, note) in [(Reason::DataGap, new_gap), (Reason::InvalidRecord, new_invalid)] {
        if let Some(note) = note
            && let Err(error) = context.events.publish_warning(notifier, reason, &note).await
        {
            event_failed(&id.namespace, &id.name, &error);
        }
    }
    Ok(remaining.map_or_else(Action::await_change, Action::requeue))
}

/// Writes the status; `false` if the notifier no longer exists.
async fn write(
    notifier: &StreamNotifier,
    status: &StreamNotifierStatus,
    context: &Context,
) -> Result<bool, ReconcileError> {
    let namespace = notifier.namespace().unwrap_or_default();
    let api: Api<StreamNotifier> = Api::namespaced(context.client.clone(), &namespace);
    // The uid keeps the status from a later resource of the same name.
    let uid = &notifier.metadata.uid;
    let mut patch = json!({ "metadata": { "uid": uid }, "status": status });
    if status.stream_arn.is_none() {
        // A merge patch keeps fields that it does not name.
        patch["status"]["streamArn"] = json!(null);
    }
    let (name, params) = (notifier.name_any(), PatchParams::default());
    let patch = Patch::Merge(patch);
    let written = api.patch_status(&name, &params, &patch);
    match timeout(WRITE_TIMEOUT, written).await.map_err(ReconcileError::Timeout)? {
        Ok(_) => Ok(true),
        // The notifier was deleted, or deleted and created again.
        Err(kube::Error::Api(error)) if matches!(error.code, 404 | 409) => Ok(false),
        Err(error) => Err(ReconcileError::Status(error)),
    }
}

/// The time as the API server stores it, so that equal times compare equal.
fn truncate_to_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

impl Applied {
    fn health(&self) -> Option<&HealthSnapshot> {
        match self {
            Self::Running { health, .. } => Some(health),
            Self::Invalid(_)
            | Self::Suspended
            | Self::IdentityNotAllowed { .. }
            | Self::OwnedElsewhere => None,
        }
    }

    /// The ARN of the stream that the worker reads.
    fn stream_arn(&self) -> Option<String> {
        let Self::Running { health, table } = self else {
            return None;
        };
        Some(health.stream.as_ref()?.arn(table))
    }
}

/// The note of an Event, if the worker counted more events than were reported.
fn new_event_note(event: &Option<CountedEvent>, reported: u64) -> Option<String> {
    let event = event.as_ref().filter(|event| event.count != reported)?;
    Some(truncate(&event.message))
}

/// The input of the conditions, or `None` if another operator writes them.
fn summarize(applied: &Applied) -> Option<ConditionInput> {
    let (ready, reason, message) = match applied {
        Applied::Invalid(invalid) => (ReadyState::Stalled, Reason::Invalid, invalid.to_string()),
        Applied::Suspended => (
            ReadyState::Ready,
            Reason::Suspended,
            "nothing is read: suspend is true; set it to false to continue from the checkpoint"
                .to_owned(),
        ),
        Applied::IdentityNotAllowed { namespace } => (
            ReadyState::Stalled,
            Reason::IdentityNotAllowed,
            format!(
                "nothing is read in namespace {namespace}: it may not use the operator's AWS identity; ask an administrator to add it to --operator-identity-namespaces (chart value aws.operatorIdentity.namespaces)"
            ),
        ),
        Applied::Running { health, .. } => return Some(summarize_worker(health)),
        Applied::OwnedElsewhere => return None,
    };
    Some(ConditionInput { ready, reason, message, degraded: None })
}

fn summarize_worker(health: &HealthSnapshot) -> ConditionInput {
    let degraded = health.warnings.values().next();
    let degraded = degraded.map(|first| (first.reason, join_messages(&health.warnings)));
    let Some(first) = health.problems.values().next() else {
        let (ready, reason, message) = match health.phase {
            Phase::Reading => (ReadyState::Ready, Reason::Reading, "every open shard is read"),
            Phase::HaltedOnGap => {
                let message = health.gap.as_ref().map_or("records were lost", |gap| &gap.message);
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
    let stalled = health.problems.values().any(|problem| problem.stalled);
    let ready = if stalled { ReadyState::Stalled } else { ReadyState::Retrying };
    // A problem that needs a person comes before one that does not.
    let first = health.problems.values().find(|problem| problem.stalled).unwrap_or(first);
    let message = join_messages(&health.problems);
    ConditionInput { ready, reason: first.reason, message, degraded }
}

fn join_messages(problems: &BTreeMap<Component, Problem>) -> String {
    let mut messages: Vec<_> = problems.values().map(|problem| &*problem.message).collect();
    messages.dedup();
    truncate(&messages.join(" | "))
}

/// A condition takes 32,768 bytes, and a stream may have thousands of shards with a problem.
fn truncate(message: &str) -> String {
    message.chars().take(1024).collect()
}
