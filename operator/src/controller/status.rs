//! Writes what was applied into the notifier's status, only where it says something new.

use std::time::Duration;

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use tokio::time::timeout;

use super::apply::Applied;
use super::{Context, ReconcileError};
use crate::api::{Readiness, Ready, StreamNotifier, StreamNotifierStatus, conditions};
use crate::telemetry::{Phase, Picture};

const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Writes the status, if it is another than before.
pub async fn update(
    notifier: &StreamNotifier,
    applied: &Applied,
    context: &Context,
) -> Result<(), ReconcileError> {
    let Some(readiness) = readiness(applied) else {
        return Ok(());
    };
    let generation = notifier.metadata.generation;
    let before = notifier.status.clone().unwrap_or_default();
    let status = StreamNotifierStatus {
        observed_generation: generation,
        conditions: conditions(&before.conditions, generation, &readiness, Timestamp::now()),
    };
    if status == before {
        return Ok(());
    }
    let namespace = notifier.namespace().unwrap_or_default();
    let api: Api<StreamNotifier> = Api::namespaced(context.client.clone(), &namespace);
    // With its uid, so that a later resource of the same name never gets it.
    let uid = &notifier.metadata.uid;
    let patch = Patch::Merge(json!({ "metadata": { "uid": uid }, "status": status }));
    let name = notifier.name_any();
    let params = PatchParams::default();
    let written = api.patch_status(&name, &params, &patch);
    match timeout(WRITE_LIMIT, written).await.map_err(ReconcileError::Late)? {
        Ok(_) => Ok(()),
        // Deleted, or made anew, meanwhile.
        Err(kube::Error::Api(gone)) if matches!(gone.code, 404 | 409) => Ok(()),
        Err(error) => Err(ReconcileError::Status(error)),
    }
}

/// What the conditions say; nothing where another operator says it.
fn readiness(applied: &Applied) -> Option<Readiness> {
    let (ready, reason, message) = match applied {
        Applied::Invalid(invalid) => (Ready::Stalled, "Invalid", invalid.to_string()),
        Applied::Suspended => (
            Ready::Yes,
            "Suspended",
            "nothing is read while spec.suspend is true; the checkpoint is kept".to_owned(),
        ),
        Applied::Working(picture) => return Some(of_worker(picture)),
        Applied::Elsewhere => return None,
    };
    Some(Readiness { ready, reason, message })
}

fn of_worker(picture: &Picture) -> Readiness {
    let Some(first) = picture.troubles.values().next() else {
        let (ready, reason, message) = if picture.phase == Phase::Reading {
            (Ready::Yes, "Reading", "every open shard is read")
        } else {
            (Ready::Starting, "Starting", "the stream's open shards are being opened")
        };
        return Readiness { ready, reason, message: message.to_owned() };
    };
    let mut messages: Vec<_> = picture.troubles.values().map(|trouble| &*trouble.message).collect();
    messages.dedup();
    let stalled = picture.troubles.values().any(|trouble| trouble.stalled);
    let ready = if stalled { Ready::Stalled } else { Ready::Held };
    Readiness { ready, reason: first.reason, message: bounded(&messages.join("; ")) }
}

/// Conditions take 32,768 bytes; a stream may have thousands of shards in trouble.
fn bounded(message: &str) -> String {
    message.chars().take(1024).collect()
}
