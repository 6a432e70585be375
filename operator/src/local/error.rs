//! Errors of local mode.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use dynoxide::DynoxideError;

use super::plan::PlanError;

/// Reason for which local mode did not start or stop.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The manifest does not define the tables.
    #[error("cannot derive the tables from the manifest: {0}")]
    Plan(#[from] PlanError),
    /// Another process listens on a port.
    #[error("{address} is in use; choose another port with {flag} (0 selects a free port)")]
    PortInUse {
        address: SocketAddr,
        /// Command-line flag that sets the port.
        flag: &'static str,
    },
    /// An address cannot be used for another reason.
    #[error(
        "cannot listen on {address}; choose another port with {flag}, or another address with \
         --listen-address"
    )]
    Port {
        address: SocketAddr,
        /// Command-line flag that sets the port.
        flag: &'static str,
        source: io::Error,
    },
    /// The data directory cannot be used.
    #[error("cannot {action} {path:?}; choose another directory with --data-dir, or omit the flag")]
    DataDir { action: &'static str, path: PathBuf, source: io::Error },
    /// Another process uses the data directory.
    #[error(
        "another `stream-notifier local` uses {0:?}; stop it, or choose another directory with \
         --data-dir"
    )]
    DataDirInUse(PathBuf),
    /// A table from an earlier run has another key, index or stream.
    #[error(
        "table {0:?} in the data directory belongs to another manifest or --key; choose another \
         --data-dir, or delete this one"
    )]
    TableMismatch(String),
    /// The embedded DynamoDB rejected a request.
    #[error("the embedded DynamoDB cannot {action}")]
    Table { action: &'static str, source: DynoxideError },
    /// A server failed, or did not stop in time.
    #[error("the local servers did not stop cleanly")]
    Stop(#[source] io::Error),
}
