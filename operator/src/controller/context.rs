//! What every reconcile of the process shares.

use std::sync::atomic::{AtomicBool, Ordering};

use kube::Client;
use kube::core::DeserializeGuard;
use kube_runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use super::events::EventRecorder;
use super::registry::NotifierRegistry;
use crate::api::StreamNotifier;
use crate::telemetry::ReadinessCheck;
use crate::worker::WorkerFactory;

/// A notifier that may not parse, for example because a later version stored it. It must not keep the
/// others from being listed.
pub type Guarded = DeserializeGuard<StreamNotifier>;

/// What every reconcile shares.
pub struct Context {
    pub client: Client,
    /// Makes the workers.
    pub factory: WorkerFactory,
    /// Publishes Kubernetes Events.
    pub events: EventRecorder,
    /// All notifiers and their workers.
    pub registry: NotifierRegistry,
    /// Requests a reconcile of a notifier whose worker's health changed.
    pub reconcile_tx: mpsc::UnboundedSender<ObjectRef<Guarded>>,
    /// Whether the watch has listed every notifier once.
    pub initial_list_done: AtomicBool,
}

impl ReadinessCheck for Context {
    fn failures(&self) -> Vec<String> {
        if self.initial_list_done.load(Ordering::Relaxed) {
            self.registry.failures()
        } else {
            vec!["StreamNotifiers are not listed yet".to_owned()]
        }
    }
}
