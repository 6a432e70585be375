//! Writes logs to standard error: JSON for a cluster, plain text for a terminal.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// Default log filter, which `RUST_LOG` replaces: `info` for the operator, `warn` for libraries.
const DEFAULT_FILTER: &str = "warn,stream_notifier=info";

/// Filter of modules that log whole response bodies, which can contain secrets, as warnings. The
/// operator logs the same errors without the body.
///
/// `RUST_LOG` overrides it only if it names one of these modules.
const BODY_FILTER: &str =
    "aws_config=error,aws_config::default_provider=warn,kube_client::client=error";

/// Filter of modules that log requests, responses and credentials at the level `trace`. It is added only
/// if `RUST_LOG` contains this level, because it raises every lower level.
const TRACE_FILTER: &str = "aws_smithy_runtime=debug,aws_sigv4=debug,hyper=debug,h2=debug";

/// The filter of the log, from the value of `RUST_LOG`. An invalid value has no effect.
fn filter(rust_log: Option<&str>) -> EnvFilter {
    // A later directive replaces an earlier one for the same module.
    let parse = |filter: &str| match filter.contains("trace") {
        true => EnvFilter::try_new(format!("{BODY_FILTER},{TRACE_FILTER},{filter}")),
        false => EnvFilter::try_new(format!("{BODY_FILTER},{filter}")),
    };
    rust_log
        .filter(|filter| !filter.is_empty())
        .and_then(|filter| parse(filter).ok())
        .unwrap_or_else(|| EnvFilter::new(format!("{BODY_FILTER},{DEFAULT_FILTER}")))
}

/// Installs the global log subscriber. Panics if one is already installed.
pub fn init_logging(json: bool) {
    let filter = filter(std::env::var(EnvFilter::DEFAULT_ENV).ok().as_deref());
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(!json && std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // It would be printed to standard error too, and panic if that is closed.
        .log_internal_errors(false);
    if json { logs.json().flatten_event(true).init() } else { logs.with_target(false).init() }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing::{info, trace, warn};

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

    /// What is logged of some events with this `RUST_LOG`.
    fn log(rust_log: Option<&str>) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter(filter(rust_log))
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
            trace!(target: "aws_smithy_runtime::client::orchestrator", "body: SdkBody");
            trace!(target: "aws_sigv4::sign", "body: a request");
        });
        String::from_utf8(buffer.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn suppresses_library_warnings_with_bodies() {
        for rust_log in
            [None, Some(""), Some("info"), Some("debug"), Some("trace"), Some("=invalid=")]
        {
            let log = log(rust_log);
            for expected in ["invalid variable", "watch failed", "operator message"] {
                assert!(log.contains(expected), "{rust_log:?}: {expected:?} is missing: {log}");
            }
            assert!(!log.contains("body"), "{rust_log:?}: {log}");
            let is_verbose = matches!(rust_log, Some("info" | "debug" | "trace"));
            assert_eq!(log.contains("library detail"), is_verbose, "{rust_log:?}: {log}");
        }
    }

    #[test]
    fn follows_rust_log_for_the_modules_that_it_names() {
        let log = log(Some("stream_notifier=info,kube_client::client=warn"));
        assert!(log.contains("operator message") && log.contains("a whole ConfigMap"), "{log}");
        assert!(!log.contains("SdkBody") && !log.contains("watch failed"), "{log}");
    }
}
