//! `stream-notifier run`: runs the operator.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use clap::{Args, ValueEnum};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::CommandError;
use super::kubernetes::{is_in_cluster, kubernetes_client};
use super::shutdown::shutdown_token;
use crate::controller::{Context, EventRecorder, Namespaces, NotifierRegistry, Scope};
use crate::worker::{Endpoints, RateLimiters, WorkerFactory};
use crate::{controller, telemetry};

/// Flags of `stream-notifier run`. Each one can also be set by an environment variable.
#[derive(Debug, Args)]
pub struct Options {
    /// Namespaces whose StreamNotifiers the operator runs, separated by commas. With a list, the
    /// operator needs permissions only in these namespaces [default: all namespaces].
    #[arg(
        long,
        value_name = "NAMESPACES",
        env = "STREAM_NOTIFIER_NAMESPACES",
        default_value = "",
        hide_default_value = true,
        value_parser = Namespaces::parse_watched
    )]
    namespaces: Namespaces,

    /// Namespaces whose StreamNotifiers may use the operator's own AWS identity, separated by commas,
    /// or * for all [default: the namespaces of --namespaces; without that flag none in a cluster, and
    /// all outside a cluster].
    #[arg(
        long,
        value_name = "NAMESPACES",
        env = "STREAM_NOTIFIER_OPERATOR_IDENTITY_NAMESPACES",
        value_parser = Namespaces::parse_allowed
    )]
    operator_identity_namespaces: Option<Namespaces>,

    /// Address that serves /livez, /readyz and /metrics [default: [::]:8080, which includes IPv4, or
    /// 0.0.0.0:8080 on a machine without IPv6].
    #[arg(long, value_name = "ADDRESS", env = "STREAM_NOTIFIER_BIND_ADDRESS")]
    bind_address: Option<SocketAddr>,

    /// Custom domains that webSocket.domain may name besides execute-api domains; separate several
    /// domains with commas.
    #[arg(
        long,
        value_name = "DOMAINS",
        env = "STREAM_NOTIFIER_ALLOWED_WEBSOCKET_DOMAINS",
        value_delimiter = ','
    )]
    allowed_websocket_domains: Vec<String>,

    /// Endpoint of an API Gateway emulator to use instead of AWS; the operator replaces {domain},
    /// {apiId} and {stage}.
    #[arg(long, value_name = "URL", env = "STREAM_NOTIFIER_GATEWAY_ENDPOINT")]
    gateway_endpoint: Option<String>,

    /// Maximum number of GetRecords and GetShardIterator requests per second, for each AWS account and
    /// region, of all StreamNotifiers together. AWS bills GetRecords requests.
    #[arg(
        long,
        value_name = "NUMBER",
        env = "STREAM_NOTIFIER_GET_RECORDS_PER_SECOND",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    get_records_per_second: u32,

    /// Maximum number of posts to WebSocket connections per second, for each region, of all
    /// StreamNotifiers together. In most regions, all APIs of an account share 10,000 requests per
    /// second.
    #[arg(
        long,
        value_name = "NUMBER",
        env = "STREAM_NOTIFIER_POSTS_PER_SECOND",
        default_value_t = 5000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    posts_per_second: u32,

    /// Format of the log on standard error.
    #[arg(
        long,
        value_name = "FORMAT",
        env = "STREAM_NOTIFIER_LOG_FORMAT",
        value_enum,
        default_value_t = LogFormat::Json
    )]
    log_format: LogFormat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum LogFormat {
    Json,
    Text,
}

/// Runs the operator until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), CommandError> {
    telemetry::init_logging(options.log_format == LogFormat::Json);
    let stop = shutdown_token()?;
    let listener = telemetry::listen(options.bind_address)?;
    let client = kubernetes_client().await?;
    let (reconcile_tx, reconcile_rx) = mpsc::unbounded_channel();
    let holder = holder_name();
    let scopes = watch_scopes(&options.namespaces);
    let identity_namespaces = identity_namespaces(
        options.operator_identity_namespaces,
        &options.namespaces,
        is_in_cluster(),
    );
    let context = Arc::new(Context {
        client: client.clone(),
        factory: WorkerFactory::from_environment(
            Endpoints {
                allowed: options.allowed_websocket_domains,
                template: options.gateway_endpoint,
            },
            RateLimiters::new(options.get_records_per_second, options.posts_per_second),
            holder.clone(),
        )
        .await?,
        events: EventRecorder::new(client.clone(), &holder),
        registry: NotifierRegistry::new(stop.clone()),
        reconcile_tx,
        identity_namespaces,
        unlisted: Mutex::new(scopes.iter().cloned().collect()),
    });
    telemetry::operator_started(
        &holder,
        listener.local_addr()?,
        &options.namespaces,
        &context.identity_namespaces,
    );
    let stop_server = CancellationToken::new();
    let server = tokio::spawn(telemetry::serve(
        listener,
        context.factory.metrics.clone(),
        context.clone(),
        stop_server.clone().cancelled_owned(),
    ));
    controller::run(scopes, context, reconcile_rx, stop).await;
    stop_server.cancel();
    server.await??;
    Ok(())
}

/// The scopes of the watches: each listed namespace has its own.
fn watch_scopes(namespaces: &Namespaces) -> Vec<Scope> {
    match namespaces {
        Namespaces::All => vec![None],
        Namespaces::Listed(names) => names.iter().cloned().map(Some).collect(),
    }
}

/// The namespaces whose notifiers may use the operator's own AWS identity.
fn identity_namespaces(
    flag: Option<Namespaces>,
    watched: &Namespaces,
    is_in_cluster: bool,
) -> Namespaces {
    match (flag, watched) {
        (Some(allowed), _) => allowed,
        (None, Namespaces::All) if is_in_cluster => Namespaces::Listed(BTreeSet::new()),
        (None, watched) => watched.clone(),
    }
}

/// Creates the holder name of this process in checkpoints: the Pod, and a random suffix because a
/// restarted container has the same Pod name.
fn holder_name() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "stream-notifier".to_owned());
    format!("{host}-{:08x}", fastrand::u32(..))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_the_identity_only_where_an_administrator_lists_it() {
        let parse = |list: &str| Namespaces::parse_allowed(list).unwrap();
        for (flag, watched, is_in_cluster, expected) in [
            (None, "*", true, "(none)"),
            (None, "*", false, "(all)"),
            (None, "a,b", true, "a,b"),
            (Some("c"), "*", true, "c"),
            (Some("*"), "a", true, "(all)"),
            (Some(""), "a", true, "(none)"),
            (Some(""), "*", false, "(none)"),
        ] {
            let allowed = identity_namespaces(flag.map(parse), &parse(watched), is_in_cluster);
            assert_eq!(allowed.to_string(), expected, "{flag:?} {watched} {is_in_cluster}");
        }
    }
}
