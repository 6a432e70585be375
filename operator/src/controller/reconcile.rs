//! One reconcile of a notifier: validate → apply → status. Only the last two steps use a client.

use std::sync::Arc;

use kube::{Resource as _, ResourceExt as _};
use kube_runtime::controller::{Action, Error as ControllerError};
use kube_runtime::reflector::ObjectRef;
use kube_runtime::watcher;

use super::apply::{Applied, apply};
use super::context::{Context, Guarded};
use super::update_status::{ERROR_REQUEUE, ReconcileError, update_status};
use crate::api::Reason;
use crate::telemetry::{Phase, reconcile_failed, unreadable_notifier};
use crate::worker::{NotifierId, Revision, Validated};

/// Makes the worker match the spec, and the status match the worker.
pub async fn reconcile(
    guarded: Arc<Guarded>,
    context: Arc<Context>,
) -> Result<Action, ReconcileError> {
    let Some((id, revision)) = identity(&guarded) else {
        return Ok(Action::await_change());
    };
    let notifier = match &guarded.0 {
        Ok(notifier) => notifier,
        Err(error) => {
            unreadable_notifier(&id.namespace, &id.name, error);
            context.registry.set_error(&id, Some("unreadable"));
            // The operator cannot write the status of this object, so only the metric reports it.
            context.factory.metrics.set_conditions(&id.namespace, &id.name, |type_| match type_ {
                "Stalled" => "True",
                _ => "False",
            });
            context.registry.stop(&id).await;
            return Ok(Action::await_change());
        }
    };
    context.registry.abort_earlier(&id, &revision.uid);
    if notifier.metadata.deletion_timestamp.is_some() {
        context.registry.set_error(&id, None);
        context.registry.stop(&id).await;
        return Ok(Action::await_change());
    }
    let validated = context.factory.validate(&notifier.spec);
    let may_use_identity = context.identity_namespaces.contains(&id.namespace);
    let error = match &validated {
        Err(_) => Some(Reason::Invalid),
        Ok(Validated::Active(_)) if !may_use_identity => Some(Reason::IdentityNotAllowed),
        Ok(Validated::Active(_) | Validated::Suspended) => None,
    };
    context.registry.set_error(&id, error.map(Reason::as_str));
    let applied = match error {
        Some(Reason::IdentityNotAllowed) => {
            context.registry.stop(&id).await;
            Applied::IdentityNotAllowed { namespace: id.namespace.clone() }
        }
        _ => apply(notifier, &id, &revision, validated, &context).await,
    };
    let action = update_status(notifier, &id, &revision, &applied, &context).await?;
    if matches!(&applied, Applied::Running { health, .. } if health.phase == Phase::CheckpointTakenOver)
    {
        context.registry.mark_takeover_reported(&id);
    }
    Ok(action)
}

/// Id and revision of an object. Every object from an API server has both.
fn identity(notifier: &Guarded) -> Option<(NotifierId, Revision)> {
    let id = NotifierId { namespace: notifier.namespace()?, name: notifier.meta().name.clone()? };
    Some((id, Revision { uid: notifier.uid()?, generation: notifier.meta().generation? }))
}

/// Retries a failed reconcile.
pub fn error_policy(_: Arc<Guarded>, error: &ReconcileError, _: Arc<Context>) -> Action {
    reconcile_failed(error);
    Action::requeue(ERROR_REQUEUE)
}

/// What the controller returns for one reconcile.
pub type ReconcileResult =
    Result<(ObjectRef<Guarded>, Action), ControllerError<ReconcileError, watcher::Error>>;

/// Forgets deleted notifiers, and logs errors that [`error_policy`] does not see.
pub fn handle_reconcile_result(context: &Context, result: ReconcileResult) {
    match result {
        Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
        Err(ControllerError::ObjectNotFound(deleted)) => {
            let namespace = deleted.namespace.unwrap_or_default();
            forget(context, &NotifierId { namespace, name: deleted.name });
        }
        Err(error) => reconcile_failed(&error),
    }
}

/// Forgets a deleted notifier.
pub fn forget(context: &Context, id: &NotifierId) {
    context.registry.forget(id);
    context.factory.metrics.remove_notifier(&id.namespace, &id.name);
}
