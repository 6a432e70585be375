//! Logs go to standard error: JSON for a cluster, plain text for a terminal.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

/// What is logged unless `RUST_LOG` says otherwise: everything from `info` on, libraries from `warn`
/// on. Some tell there the whole body of an answer that was none; our own warning, and the condition,
/// tell that without it.
const FILTER: &str = "warn,stream_notifier=info,\
    aws_config=error,aws_config::default_provider=warn,kube_client::client=error";

/// Installs the log writer.
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
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl Write for Written {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn bodies_that_libraries_warn_of_are_not_logged() {
        let written = Written::default();
        let writer = written.clone();
        let logs = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(FILTER))
            .with_writer(move || writer.clone());
        tracing::subscriber::with_default(logs.finish(), || {
            warn!(target: "aws_config::meta::credentials::chain", "body: SdkBody");
            warn!(target: "aws_config::web_identity_token", "body: SdkBody");
            warn!(target: "aws_config::imds::credentials", "body: SdkBody");
            warn!(target: "aws_config::sts::assume_role", "body: SdkBody");
            warn!(target: "kube_client::client", "body: a whole ConfigMap");
            warn!(target: "aws_config::default_provider::use_fips", "a variable is wrong");
            warn!(target: "kube_runtime::watcher", "the watch fails");
            info!(target: "stream_notifier::telemetry::events", "we tell");
            info!(target: "hyper", "chatter");
        });
        let written = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        for told in ["a variable is wrong", "the watch fails", "we tell"] {
            assert!(written.contains(told), "{told} is missing: {written}");
        }
        assert!(!written.contains("body"), "{written}");
        assert!(!written.contains("chatter"), "{written}");
    }
}
