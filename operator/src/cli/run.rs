//! `stream-notifier run`: the operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::{Args, ValueEnum};
use kube::{Api, Client};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::shutdown::shutdown_token;
use crate::aws::AwsConfig;
use crate::cli::CommandError;
use crate::controller::{Context, EventRecorder, Known, Told};
use crate::rules::EvaluatorPool;
use crate::telemetry::Metrics;
use crate::worker::{Endpoints, RateLimiters, Supervisor, WorkerFactory};
use crate::{controller, telemetry};

/// The operator's flags; each can be given as an environment variable too.
#[derive(Debug, Args)]
pub struct Options {
    /// Work on the StreamNotifiers of this namespace only [default: all namespaces].
    #[arg(long, env = "STREAM_NOTIFIER_NAMESPACE")]
    namespace: Option<String>,

    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "STREAM_NOTIFIER_BIND_ADDRESS", default_value = "0.0.0.0:8080")]
    bind_address: SocketAddr,

    /// Custom WebSocket domains that a StreamNotifier may name, besides API Gateway's own; separated
    /// by commas.
    #[arg(long, env = "STREAM_NOTIFIER_ALLOWED_WEBSOCKET_DOMAINS", value_delimiter = ',')]
    allowed_websocket_domains: Vec<String>,

    /// An emulator's WebSocket endpoint, instead of AWS; {domain}, {apiId} and {stage} are replaced.
    #[arg(long, env = "STREAM_NOTIFIER_GATEWAY_ENDPOINT")]
    gateway_endpoint: Option<String>,

    /// GetRecords calls a second at most, for each AWS account and region, by all StreamNotifiers
    /// together. AWS bills them.
    #[arg(
        long,
        env = "STREAM_NOTIFIER_GET_RECORDS_PER_SECOND",
        default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    get_records_per_second: u32,

    /// Posts to WebSocket connections a second at most, for each region, by all StreamNotifiers
    /// together. AWS allows an account 10,000 in most regions, which its other APIs share.
    #[arg(
        long,
        env = "STREAM_NOTIFIER_POSTS_PER_SECOND",
        default_value_t = 5000,
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    posts_per_second: u32,

    /// How logs are written to standard error.
    #[arg(long, env = "STREAM_NOTIFIER_LOG_FORMAT", value_enum, default_value_t = LogFormat::Json)]
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
    let listener = TcpListener::bind(options.bind_address).await.map_err(|error| {
        format!("cannot listen on {}: {error}; choose another --bind-address", options.bind_address)
    })?;
    let client = Client::try_default().await?;
    let (wake, woken) = mpsc::unbounded_channel();
    let holder = holder();
    let context = Arc::new(Context {
        client: client.clone(),
        factory: WorkerFactory {
            aws: AwsConfig::from_environment().await,
            endpoints: Endpoints {
                allowed: options.allowed_websocket_domains,
                template: options.gateway_endpoint,
            },
            evaluators: EvaluatorPool::on_threads(None)?,
            rate_limiters: RateLimiters::new(
                options.get_records_per_second,
                options.posts_per_second,
            ),
            holder: holder.clone(),
            metrics: Metrics::default(),
        },
        events: EventRecorder::new(client.clone(), &holder),
        supervisor: Supervisor::new(stop.clone()),
        told: Told::default(),
        reconcile_tx: wake,
        known: Known::default(),
        initial_list_done: AtomicBool::new(false),
    });
    let namespace = options.namespace.as_deref();
    telemetry::started(&holder, listener.local_addr()?, namespace);
    let served = CancellationToken::new();
    let server = tokio::spawn(telemetry::serve(
        listener,
        context.factory.metrics.clone(),
        context.clone(),
        served.clone().cancelled_owned(),
    ));
    let api = match namespace {
        Some(namespace) => Api::namespaced(client, namespace),
        None => Api::all(client),
    };
    controller::run(api, context, woken, stop).await;
    served.cancel();
    server.await??;
    Ok(())
}

/// This process, as checkpoints name it: the pod, and something that tells one start from another.
fn holder() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "stream-notifier".to_owned());
    format!("{host}-{:08x}", fastrand::u32(..))
}
