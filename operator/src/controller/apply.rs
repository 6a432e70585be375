//! Starts, restarts or stops the worker of a notifier, as its spec requires.

use std::sync::Arc;

use kube::Resource as _;
use kube_runtime::reflector::ObjectRef;

use super::context::Context;
use crate::api::StreamNotifier;
use crate::checkpoint::ConfigMapStore;
use crate::telemetry::{HealthSnapshot, Phase};
use crate::worker::{InvalidSpec, NotifierId, Revision, Validated, WorkerSpec};

/// The result of a reconcile, from which the status is computed.
#[derive(Debug)]
pub enum Applied {
    /// The spec is invalid, and no worker runs.
    Invalid(InvalidSpec),
    /// The notifier is suspended, and no worker runs.
    Suspended,
    /// The notifier may not use the operator's AWS identity, and no worker runs.
    IdentityNotAllowed { namespace: String },
    /// A worker runs, or has ended by itself.
    Running {
        /// Its health.
        health: HealthSnapshot,
        /// The ARN of the table that it reads.
        table: String,
    },
    /// Another operator took the checkpoint over, and writes the status.
    OwnedElsewhere,
}

/// Makes the worker match the spec. Waits for an earlier worker to drain.
pub async fn apply(
    notifier: &StreamNotifier,
    id: &NotifierId,
    revision: &Revision,
    validated: Result<Validated, InvalidSpec>,
    context: &Context,
) -> Applied {
    let spec = match validated {
        Ok(Validated::Active(spec)) => spec,
        Ok(Validated::Suspended) => {
            context.registry.stop(id).await;
            return Applied::Suspended;
        }
        Err(invalid) => {
            context.registry.stop(id).await;
            return Applied::Invalid(invalid);
        }
    };
    let table = spec.table.arn.clone();
    if let Some(health) = context.registry.health(id, revision) {
        return match health.phase {
            Phase::CheckpointTakenOver if context.registry.has_reported_takeover(id) => {
                Applied::OwnedElsewhere
            }
            _ => Applied::Running { health, table },
        };
    }
    // A worker of an earlier generation.
    context.registry.stop(id).await;
    start(notifier, id, revision, *spec, context);
    let health = context.registry.health(id, revision).unwrap_or_default();
    Applied::Running { health, table }
}

fn start(
    notifier: &StreamNotifier,
    id: &NotifierId,
    revision: &Revision,
    spec: WorkerSpec,
    context: &Context,
) {
    // Every object from an API server can be an owner.
    let Some(owner) = notifier.controller_owner_ref(&()) else {
        return;
    };
    let NotifierId { namespace, name } = id;
    let store = ConfigMapStore::new(context.client.clone(), namespace, owner);
    let worker = context.factory.worker(namespace, name, Arc::new(spec), Arc::new(store));
    let object = ObjectRef::new(name).within(namespace);
    let reconcile_tx = context.reconcile_tx.clone();
    // The receiver lives as long as the controller. Without it there is nothing to reconcile.
    let on_change = move || drop(reconcile_tx.send(object.clone()));
    context.registry.start(id, revision.clone(), worker, on_change);
}
