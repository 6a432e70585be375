//! Keeps one worker per notifier as its spec says, and its status as the worker tells. A reconcile
//! is a list of steps: validate → apply → status; only the last two talk to anybody.

pub mod apply;
pub mod events;
pub mod known;
#[cfg(test)]
pub mod tests;
pub mod told;
pub mod update_status;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::core::DeserializeGuard;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use kube_runtime::WatchStreamExt as _;
use kube_runtime::controller::{Action, Config, Controller, Error as ControllerError};
use kube_runtime::reflector::{
    ObjectRef, Store, {self},
};
use kube_runtime::watcher::{
    watcher, {self},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::events::EventRecorder;
pub use self::known::Known;
pub use self::told::Told;
use crate::api::{Reason, StreamNotifier};
use crate::controller::apply::Applied;
use crate::telemetry::{Phase, ReadinessCheck, reconcile_failed, unreadable_notifier};
use crate::worker::{NotifierId, Revision, Supervisor, WorkerFactory};

/// Reconciles under way at once. One that waits for a worker to stop holds its place.
const CONCURRENCY: u16 = 16;

/// A notifier that may be unreadable, as one stored by a later version can be: it must not keep the
/// others from being listed.
pub type Guarded = DeserializeGuard<StreamNotifier>;

/// Changes of a notifier, or of its worker's health, that come faster make one reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// When a reconcile is tried again.
const ERROR_REQUEUE: Duration = Duration::from_secs(5);

/// Everything a reconcile needs.
pub struct Context {
    /// The cluster.
    pub client: Client,
    /// Makes the workers.
    pub factory: WorkerFactory,
    /// Where Events are stored.
    pub events: EventRecorder,
    /// The workers.
    pub supervisor: Supervisor,
    /// What was told of each notifier.
    pub told: Told,
    /// Wakes the reconcile of a notifier whose worker's health has changed.
    pub reconcile_tx: mpsc::UnboundedSender<ObjectRef<Guarded>>,
    /// The notifiers that are stored.
    pub known: Known,
    /// Whether the watch has listed everything.
    pub initial_list_done: AtomicBool,
}

impl ReadinessCheck for Context {
    fn failures(&self) -> Vec<String> {
        if !self.initial_list_done.load(Ordering::Relaxed) {
            return vec!["StreamNotifiers are not listed yet".to_owned()];
        }
        let mut lines = self.supervisor.troubles();
        lines.extend(self.known.unworkable());
        lines.sort();
        // Many shards may be in the same trouble.
        lines.dedup();
        lines
    }
}

/// Why a reconcile failed; it is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The status could not be written.
    #[error("the status of the notifier could not be written")]
    Status(#[source] kube::Error),
    /// The API server did not answer in time.
    #[error("the API server did not answer in time")]
    Timeout(#[source] tokio::time::error::Elapsed),
}

/// Reconciles until `stop`, which stops every worker too, and waits for them.
pub async fn run(
    api: Api<Guarded>,
    context: Arc<Context>,
    woken: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
    stop: CancellationToken,
) {
    let (store, writer) = reflector::store();
    let (at_list, listed) = (context.clone(), store.clone());
    let objects = watcher(api, watcher::Config::default())
        .reflect(writer)
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                stop_orphaned_workers(&at_list, &listed);
                at_list.initial_list_done.store(true, Ordering::Relaxed);
            }
        })
        // Without a filter by generation, which would hide deletions; a reconcile that finds nothing
        // to change writes nothing.
        .touched_objects();
    let woken = futures::stream::unfold(woken, async |mut woken| {
        let object = woken.recv().await?;
        Some((object, woken))
    });
    let stopped = stop.clone().cancelled_owned();
    let reconciled = Controller::for_stream(objects, store)
        .with_config(Config::default().concurrency(CONCURRENCY).debounce(DEBOUNCE))
        .reconcile_on(woken)
        .graceful_shutdown_on(stopped)
        .run(reconcile, error_policy, context.clone())
        .for_each(|result| {
            handle_reconcile_result(&context, result);
            std::future::ready(())
        });
    // Until everything is listed once, the controller does not end: it waits for the list.
    let stopped_unlisted = async {
        stop.cancelled().await;
        if context.initial_list_done.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = reconciled => {}
        () = stopped_unlisted => {}
    }
    context.supervisor.wait().await;
}

async fn reconcile(guarded: Arc<Guarded>, context: Arc<Context>) -> Result<Action, ReconcileError> {
    let Some((id, revision)) = identity(&guarded) else {
        return Ok(Action::await_change());
    };
    let notifier = match &guarded.0 {
        Ok(notifier) => notifier,
        Err(unreadable) => {
            unreadable_notifier(&id.namespace, &id.name, unreadable);
            context.known.note(&id, Some("unreadable"));
            // Its status cannot be written, so the metric alone reports it.
            context.factory.metrics.set_conditions(&id.namespace, &id.name, |type_| match type_ {
                "Stalled" => "True",
                _ => "False",
            });
            context.supervisor.stop(&id).await;
            return Ok(Action::await_change());
        }
    };
    context.supervisor.abort_other(&id, &revision.uid);
    if notifier.metadata.deletion_timestamp.is_some() {
        context.known.note(&id, None);
        context.supervisor.stop(&id).await;
        return Ok(Action::await_change());
    }
    let prepared = context.factory.validate(&notifier.spec);
    context.known.note(&id, prepared.is_err().then_some(Reason::Invalid.as_str()));
    let applied =
        crate::controller::apply::apply(notifier, &id, &revision, prepared, &context).await;
    let again =
        crate::controller::update_status::update(notifier, &id, &revision, &applied, &context)
            .await?;
    if matches!(&applied, Applied::Running { picture, .. } if picture.phase == Phase::CheckpointTakenOver)
    {
        context.supervisor.told_lost_claim(&id);
    }
    Ok(again)
}

/// Which notifier it is; an object that came from a server has all of this.
fn identity(notifier: &Guarded) -> Option<(NotifierId, Revision)> {
    let id = NotifierId { namespace: notifier.namespace()?, name: notifier.meta().name.clone()? };
    Some((id, Revision { uid: notifier.uid()?, generation: notifier.meta().generation? }))
}

fn error_policy(_: Arc<Guarded>, error: &ReconcileError, _: Arc<Context>) -> Action {
    reconcile_failed(error);
    Action::requeue(ERROR_REQUEUE)
}

type Reconciled =
    Result<(ObjectRef<Guarded>, Action), ControllerError<ReconcileError, watcher::Error>>;

fn handle_reconcile_result(context: &Context, result: Reconciled) {
    match result {
        Ok(_) | Err(ControllerError::ReconcilerFailed(..)) => {}
        Err(ControllerError::ObjectNotFound(gone)) => {
            let namespace = gone.namespace.unwrap_or_default();
            forget(context, &NotifierId { namespace, name: gone.name });
        }
        Err(error) => reconcile_failed(&error),
    }
}

/// Ends the workers whose notifiers were deleted while nobody watched, and forgets those that have
/// none.
fn stop_orphaned_workers(context: &Context, listed: &Store<Guarded>) {
    let find = |id: &NotifierId| listed.get(&ObjectRef::new(&id.name).within(&id.namespace));
    for (id, uid) in context.supervisor.ids() {
        if find(&id).is_none_or(|found| found.uid().as_ref() != Some(&uid)) {
            forget(context, &id);
        }
    }
    for id in context.known.ids() {
        if find(&id).is_none() {
            forget(context, &id);
        }
    }
}

fn forget(context: &Context, id: &NotifierId) {
    context.known.forget(id);
    context.told.forget(id);
    context.supervisor.abort(id);
    context.factory.metrics.forget(&id.namespace, &id.name);
}
