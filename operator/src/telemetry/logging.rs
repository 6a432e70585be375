//! Writes logs to standard error: JSON for a cluster, plain text for a terminal.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Default log filter, which `RUST_LOG` replaces: `info` for the operator, `warn` for libraries.
///
/// The modules in this filter log whole response bodies, which can contain secrets, as warnings.
/// The operator logs the same errors without the body.
const FILTER: &str = "warn,stream_notifier=info,\
    aws_config=error,aws_config::default_provider=warn,kube_client::client=error";

/// Installs the global log subscriber. Panics if one is already installed.
pub fn init_logging(json: bool) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(FILTER));
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!json && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json { logs.json().flatten_event(true).init() } else { logs.with_target(false).init() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{info, warn};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn suppresses_library_warnings_with_bodies() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(logs.finish(), || {
            warn!(target: "aws_config::meta::credentials::chain", "body: SdkBody");
            warn!(target: "aws_config::web_identity_token", "body: SdkBody");
            warn!(target: "aws_config::imds::credentials", "body: SdkBody");
            warn!(target: "aws_config::sts::assume_role", "body: SdkBody");
            warn!(target: "kube_client::client", "body: a whole ConfigMap");
            warn!(target: "aws_config::default_provider::use_fips", "invalid variable");
            warn!(target: "kube_runtime::watcher", "watch failed");
            info!(target: "stream_notifier::telemetry::events", "operator message");
            info!(target: "hyper", "library detail");
        });
        let log = String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap();
        for expected in ["invalid variable", "watch failed", "operator message"] {
            assert!(log.contains(expected), "{expected:?} is missing: {log}");
        }
        assert!(!log.contains("body"), "{log}");
        assert!(!log.contains("library detail"), "{log}");
    }
}
