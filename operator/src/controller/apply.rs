//! Makes the worker be what the spec asks for, and says what it is.

use std::sync::Arc;

use kube_runtime::reflector::ObjectRef;

use crate::api::StreamNotifier;
use crate::checkpoint::ConfigMapStore;
use crate::controller::Context;
use crate::rules::InvalidSpec;
use crate::telemetry::{HealthSnapshot, Phase};
use crate::worker::{NotifierId, Revision, Validated, WorkerSpec};

/// What has been applied.
#[derive(Debug)]
pub enum Applied {
    /// The spec cannot be worked on; no worker runs.
    Invalid(InvalidSpec),
    /// No worker runs, on request.
    Suspended,
    /// A worker runs, or has just ended by itself, and this is how it is.
    Running {
        /// How it is.
        picture: HealthSnapshot,
        /// The ARN of the table whose streams it reads.
        table: String,
    },
    /// Another operator works on it, and tells how it is.
    OwnedElsewhere,
}

/// Starts, restarts or stops the worker.
pub async fn apply(
    notifier: &StreamNotifier,
    id: &NotifierId,
    revision: &Revision,
    prepared: Result<Validated, InvalidSpec>,
    context: &Context,
) -> Applied {
    let work = match prepared {
        Ok(Validated::Active(work)) => work,
        Ok(Validated::Suspended) => {
            context.supervisor.stop(id).await;
            return Applied::Suspended;
        }
        Err(invalid) => {
            context.supervisor.stop(id).await;
            return Applied::Invalid(invalid);
        }
    };
    let table = work.table.arn.clone();
    if let Some(picture) = context.supervisor.health(id, revision) {
        return match picture.phase {
            Phase::CheckpointTakenOver if context.supervisor.has_told_lost_claim(id) => {
                Applied::OwnedElsewhere
            }
            _ => Applied::Running { picture, table },
        };
    }
    // The one of an earlier generation.
    context.supervisor.stop(id).await;
    start(notifier, id, revision, *work, context);
    let picture = context.supervisor.health(id, revision).unwrap_or_default();
    Applied::Running { picture, table }
}

fn start(
    notifier: &StreamNotifier,
    id: &NotifierId,
    revision: &Revision,
    to_do: WorkerSpec,
    context: &Context,
) {
    let Some(store) = ConfigMapStore::new(context.client.clone(), notifier) else {
        return;
    };
    let NotifierId { namespace, name } = id;
    let worker = context.factory.worker(namespace, name, Arc::new(to_do), Arc::new(store));
    let (wake, object) = (context.reconcile_tx.clone(), ObjectRef::new(name).within(namespace));
    // The receiver lives as long as the controller. Without one there is nothing to wake.
    let changed = move || drop(wake.send(object.clone()));
    context.supervisor.start(id.clone(), revision.clone(), worker, changed);
}
