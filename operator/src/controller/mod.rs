//! The controller: watches StreamNotifiers, keeps one worker for each, and writes their status.

mod apply;
mod context;
mod events;
mod reconcile;
mod registry;
#[cfg(test)]
mod tests;
mod update_status;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _};
use kube::Api;
use kube_runtime::WatchStreamExt as _;
use kube_runtime::controller::{Config, Controller};
use kube_runtime::reflector::{self, ObjectRef};
use kube_runtime::watcher::{self, watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::context::{Context, Guarded};
pub use self::events::EventRecorder;
use self::reconcile::{error_policy, handle_reconcile_result, reconcile, stop_orphaned_workers};
pub use self::registry::NotifierRegistry;

/// Reconciles that may run at once. One that waits for a worker to stop occupies a slot.
const MAX_CONCURRENT_RECONCILES: u16 = 16;

/// Triggers for one notifier that arrive within this time cause a single reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Reconciles until `stop`. Then waits for all workers, which the same token stops.
pub async fn run(
    api: Api<Guarded>,
    context: Arc<Context>,
    reconcile_rx: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
    stop: CancellationToken,
) {
    let (store, writer) = reflector::store();
    let (list_context, listed) = (context.clone(), store.clone());
    let objects = watcher(api, watcher::Config::default())
        .reflect(writer)
        .inspect_ok(move |event| {
            if matches!(event, watcher::Event::InitDone) {
                stop_orphaned_workers(&list_context, &listed);
                list_context.initial_list_done.store(true, Ordering::Relaxed);
            }
        })
        // No filter by generation, which would hide deletions. A reconcile that changes nothing
        // writes nothing.
        .touched_objects();
    let health_changes = futures::stream::unfold(reconcile_rx, async |mut reconcile_rx| {
        let object = reconcile_rx.recv().await?;
        Some((object, reconcile_rx))
    });
    let reconciled = Controller::for_stream(objects, store)
        .with_config(Config::default().concurrency(MAX_CONCURRENT_RECONCILES).debounce(DEBOUNCE))
        .reconcile_on(health_changes)
        .graceful_shutdown_on(stop.clone().cancelled_owned())
        .run(reconcile, error_policy, context.clone())
        .for_each(|result| {
            handle_reconcile_result(&context, result);
            std::future::ready(())
        });
    // Before the first list is complete, the controller ignores a shutdown and waits for the list.
    let stopped_before_list = async {
        stop.cancelled().await;
        if context.initial_list_done.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        biased;
        () = reconciled => {}
        () = stopped_before_list => {}
    }
    context.registry.wait().await;
}
