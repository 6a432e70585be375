//! Makes the worker be what the spec asks for, and says what it is.

use std::sync::Arc;

use kube_runtime::reflector::ObjectRef;

use super::Context;
use super::validate::{Prepared, Work};
use crate::api::StreamNotifier;
use crate::kubernetes::ConfigMapStore;
use crate::notifier::InvalidSpec;
use crate::telemetry::{NotifierTelemetry, Phase, Picture};
use crate::worker::{Job, NotifierId, Revision, work};

/// What has been applied.
#[derive(Debug)]
pub enum Applied {
    /// The spec cannot be worked on; no worker runs.
    Invalid(InvalidSpec),
    /// No worker runs, on request.
    Suspended,
    /// A worker runs, or has just ended by itself, and this is how it is.
    Working {
        /// How it is.
        picture: Picture,
        /// The ARN of the table whose streams it reads.
        table: String,
    },
    /// Another operator works on it, and tells how it is.
    Elsewhere,
}

/// Starts, restarts or stops the worker.
pub async fn apply(
    notifier: &StreamNotifier,
    id: &NotifierId,
    revision: &Revision,
    prepared: Result<Prepared, InvalidSpec>,
    context: &Context,
) -> Applied {
    let work = match prepared {
        Ok(Prepared::Active(work)) => work,
        Ok(Prepared::Suspended) => {
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
            Phase::ClaimLost if context.supervisor.has_told_lost_claim(id) => Applied::Elsewhere,
            _ => Applied::Working { picture, table },
        };
    }
    // The one of an earlier generation.
    context.supervisor.stop(id).await;
    start(notifier, id, revision, *work, context);
    let picture = context.supervisor.health(id, revision).unwrap_or_default();
    Applied::Working { picture, table }
}

fn start(
    notifier: &StreamNotifier,
    id: &NotifierId,
    revision: &Revision,
    to_do: Work,
    context: &Context,
) {
    let Some(store) = ConfigMapStore::new(context.client.clone(), notifier) else {
        return;
    };
    let neighbours = Arc::new(to_do.neighbours(&context.aws, store));
    let telemetry = NotifierTelemetry::new(context.metrics.clone(), &id.namespace, &id.name);
    let limits = context.limits.of(&to_do.table);
    let post_limits = context.limits.posts(to_do.signed_for());
    let dead_letters = to_do.dead_letters(&context.aws);
    let (evaluator, holder) = (context.evaluator.clone(), context.holder.clone());
    let (wake, object) = (context.wake.clone(), ObjectRef::new(&id.name).within(&id.namespace));
    context.supervisor.start(
        id.clone(),
        revision.clone(),
        move |health, stop| {
            let neighbours = neighbours.clone();
            let job = Job {
                dead_letters: dead_letters.clone(),
                ..to_do.clone().job(
                    evaluator.clone(),
                    limits.clone(),
                    post_limits.clone(),
                    holder.clone(),
                    health,
                    telemetry.clone(),
                )
            };
            async move { work(&*neighbours, &job, &stop).await }
        },
        // The receiver lives as long as the controller; without one there is nobody to tell.
        move || drop(wake.send(object.clone())),
    );
}
