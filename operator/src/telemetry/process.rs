//! What the process as a whole tells.

use std::error::Error;
use std::net::SocketAddr;

use tracing::{info, warn};

use super::notifier::error_chain;

/// The operator works.
pub fn started(holder: &str, address: SocketAddr, namespace: Option<&str>) {
    info!(holder, %address, namespace = namespace.unwrap_or("(all)"), "operator started");
}

/// The operator was told to stop.
pub fn stopping() {
    info!("stopping: finishing what is under way");
}

/// A stored notifier is not read, because it does not parse.
pub fn unreadable_notifier(namespace: &str, name: &str, error: &dyn Error) {
    let error = error_chain(error);
    warn!(namespace, name, error, "the stored StreamNotifier cannot be read: nothing runs for it");
}

/// A reconcile, or the watch, failed and is tried again.
pub fn reconcile_failed(error: &dyn Error) {
    warn!(error = error_chain(error), "reconcile failed; trying again");
}

/// A Kubernetes Event was not stored; nobody tries again.
pub fn event_failed(namespace: &str, name: &str, error: &dyn Error) {
    warn!(
        namespace,
        name,
        error = error_chain(error),
        "the Event of a notifier could not be stored"
    );
}

/// The local gateway: a WebSocket did not close in time.
#[cfg(feature = "local")]
pub fn local_socket_left_open() {
    warn!("a connection did not close in time; its row may be left");
}

/// The local gateway: a closed connection's row stays.
#[cfg(feature = "local")]
pub fn local_row_left(error: &dyn Error) {
    warn!(error = error_chain(error), "the row of a closed connection could not be deleted");
}
