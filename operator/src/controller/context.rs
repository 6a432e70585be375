//! What every reconcile of the process shares.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::Client;
use kube::core::DeserializeGuard;
use kube_runtime::reflector::ObjectRef;
use tokio::sync::mpsc;

use super::events::EventRecorder;
use super::namespaces::Namespaces;
use super::registry::NotifierRegistry;
use crate::api::StreamNotifier;
use crate::telemetry::ReadinessCheck;
use crate::worker::WorkerFactory;

/// A notifier that may not parse, for example because a later version stored it. It must not keep the
/// others from being listed.
pub type Guarded = DeserializeGuard<StreamNotifier>;

/// The scope of a watch: a namespace, or all of them.
pub type Scope = Option<String>;

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
    /// The namespaces whose notifiers may use the operator's own AWS identity.
    pub identity_namespaces: Namespaces,
    /// The scopes whose notifiers were not listed yet.
    pub unlisted: Mutex<BTreeSet<Scope>>,
}

impl Context {
    /// Records that all notifiers of a scope were listed.
    pub fn mark_listed(&self, scope: &Scope) {
        self.unlisted().remove(scope);
    }

    fn unlisted(&self) -> MutexGuard<'_, BTreeSet<Scope>> {
        self.unlisted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ReadinessCheck for Context {
    fn failures(&self) -> Vec<String> {
        let unlisted = self.unlisted();
        let unlisted = unlisted.iter().map(|scope| match scope {
            Some(namespace) => format!("{namespace}: StreamNotifiers are not listed yet"),
            None => "StreamNotifiers are not listed yet".to_owned(),
        });
        unlisted.chain(self.registry.failures()).collect()
    }
}
