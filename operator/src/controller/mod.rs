//! The controller: watches StreamNotifiers, keeps one worker for each, and writes their status.

mod apply;
mod context;
mod events;
mod namespaces;
mod reconcile;
mod registry;
#[cfg(test)]
mod tests;
mod update_status;
mod watch;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube_runtime::controller::{Config, Controller};
use kube_runtime::reflector::ObjectRef;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub use self::context::{Context, Guarded, Scope};
pub use self::events::EventRecorder;
pub use self::namespaces::Namespaces;
use self::reconcile::{error_policy, handle_reconcile_result, reconcile};
pub use self::registry::NotifierRegistry;
use self::watch::watch_notifiers;

/// Reconciles that may run at once. One that waits for a worker to stop occupies a slot.
const MAX_CONCURRENT_RECONCILES: u16 = 16;

/// Triggers for one notifier that arrive within this time cause a single reconcile.
const DEBOUNCE: Duration = Duration::from_millis(100);

/// Reconciles the notifiers of these scopes until `stop`. Then waits for all workers, which the same
/// token stops.
pub async fn run(
    scopes: Vec<Scope>,
    context: Arc<Context>,
    reconcile_rx: mpsc::UnboundedReceiver<ObjectRef<Guarded>>,
    stop: CancellationToken,
) {
    let (store, objects) = watch_notifiers(&context, scopes);
    let health_changes = futures::stream::unfold(reconcile_rx, async |mut reconcile_rx| {
        let object = reconcile_rx.recv().await?;
        Some((object, reconcile_rx))
    });
    Controller::for_stream(objects, store)
        .with_config(Config::default().concurrency(MAX_CONCURRENT_RECONCILES).debounce(DEBOUNCE))
        .reconcile_on(health_changes)
        .graceful_shutdown_on(stop.cancelled_owned())
        .run(reconcile, error_policy, context.clone())
        .for_each(|result| {
            handle_reconcile_result(&context, result);
            std::future::ready(())
        })
        .await;
    context.registry.wait().await;
}
