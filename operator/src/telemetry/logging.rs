//! Logs go to standard error: JSON for a cluster, plain text for a terminal.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Installs the log writer. `RUST_LOG` says what is logged; by default everything from `info` on,
/// libraries from `warn` on.
pub fn init(json: bool) {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,stream_notifier=info"));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!json && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json { logs.json().flatten_event(true).init() } else { logs.with_target(false).init() }
}
