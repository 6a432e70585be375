//! Log events of the process as a whole.

use std::error::Error;
use std::fmt::Display;
use std::net::SocketAddr;

use tracing::{info, warn};

use super::error_chain::error_chain;

/// The operator started and serves HTTP at `address`. It watches `namespaces`. Those of
/// `identity_namespaces` may use its AWS identity.
pub fn operator_started(
    holder: &str,
    address: SocketAddr,
    namespaces: &dyn Display,
    identity_namespaces: &dyn Display,
) {
    info!(holder, %address, %namespaces, %identity_namespaces, "operator started");
}

/// The process received a stop signal.
pub fn shutdown_started() {
    info!("stop signal received, shutting down");
}

/// A stored StreamNotifier cannot be parsed, so the operator runs no worker for it.
pub fn unreadable_notifier(namespace: &str, name: &str, error: &dyn Error) {
    warn!(namespace, name, error = error_chain(error), "stored StreamNotifier cannot be parsed");
}

/// The watch of a namespace, or of all of them, failed. The operator retries it.
pub fn watch_failed(namespace: Option<&str>, error: &dyn Error) {
    let namespace = namespace.unwrap_or("(all)");
    warn!(namespace, error = error_chain(error), "watch failed, retrying");
}

/// A reconcile failed. The operator retries it.
pub fn reconcile_failed(error: &dyn Error) {
    warn!(error = error_chain(error), "reconcile failed, retrying");
}

/// A Kubernetes Event was not stored. The operator does not retry it.
pub fn event_failed(namespace: &str, name: &str, error: &dyn Error) {
    warn!(namespace, name, error = error_chain(error), "Event not stored");
}

/// The local gateway stopped before a WebSocket was closed and its row deleted.
#[cfg(feature = "local")]
pub fn websocket_not_closed() {
    warn!("WebSocket not closed in time; its row may remain in the connections table");
}

/// The local gateway could not delete the row of a closed connection.
#[cfg(feature = "local")]
pub fn local_row_not_deleted(error: &dyn Error) {
    warn!(error = error_chain(error), "row of closed connection not deleted");
}
