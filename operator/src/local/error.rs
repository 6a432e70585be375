//! Why the local mode does not start.

use std::io;
use std::path::PathBuf;

use dynoxide::DynoxideError;

use super::plan::PlanError;

/// Why the local mode does not start, or did not stop cleanly.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The manifest does not say which tables it needs.
    #[error("the manifest's tables cannot be made: {0}")]
    Plan(#[from] PlanError),
    /// A port is taken.
    #[error("port {port} of 127.0.0.1 is in use; choose another with {flag} (0: any free one)")]
    PortInUse {
        /// The port.
        port: u16,
        /// The command's flag that changes it.
        flag: &'static str,
    },
    /// A port cannot be had for another reason.
    #[error("port {port} of 127.0.0.1 cannot be listened on; choose another with {flag}")]
    Port {
        /// The port.
        port: u16,
        /// The command's flag that changes it.
        flag: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The data directory is not usable.
    #[error("{what} {path:?} failed; choose another directory with --data-dir, or leave it out")]
    DataDir {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Another process uses the data directory.
    #[error(
        "another `stream-notifier local` uses {0:?}; stop it, or choose another directory with \
         --data-dir"
    )]
    DataDirInUse(PathBuf),
    /// A table of an earlier run has another shape.
    #[error(
        "table {0:?} in the data directory was made for another manifest or another --key; \
         choose another --data-dir, or delete this one"
    )]
    OtherTable(String),
    /// The embedded table refused.
    #[error("{what} failed in the embedded table")]
    Table {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: DynoxideError,
    },
    /// A server stopped in disorder.
    #[error("the local servers did not stop cleanly")]
    Stop(#[source] io::Error),
}
