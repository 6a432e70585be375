//! `stream-notifier local`: runs one StreamNotifier on this machine, without AWS or Kubernetes.
//!
//! The worker and the AWS clients are those of `run`. Only their endpoints differ.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use super::error::CommandError;
use super::output::{print, print_error};
use super::shutdown::shutdown_token;
use crate::checkpoint::FileStore;
use crate::local::Local;
use crate::local::manifest::read_manifest;
use crate::telemetry::{Health, HealthSnapshot, Phase};
use crate::worker::{Endpoints, RateLimiters, Validated, WorkerFactory, WorkerSpec};
use crate::{local, telemetry};

/// GetRecords requests per second. The local stream bills none, so this is the default of `run`.
const GET_RECORDS_PER_SECOND: u32 = 1000;
/// Posts per second, as in `run`.
const POSTS_PER_SECOND: u32 = 5_000;

/// Flags of `stream-notifier local`.
#[derive(Debug, Args)]
pub struct Options {
    /// Manifest of the StreamNotifier [default: the built-in example target-attribute].
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// IP address on which the servers listen. Other machines can reach the servers unless it is a
    /// loopback address.
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    listen_address: IpAddr,

    /// Port of the embedded DynamoDB; 0 selects a free port.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    dynamodb_port: u16,

    /// Port of the WebSocket gateway and the web page; 0 selects a free port.
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    port: u16,

    /// Key attribute of the table, partition key first; repeat the flag for a sort key [default: from
    /// the manifest].
    #[arg(long = "key", value_name = "NAME")]
    keys: Vec<String>,

    /// Directory that keeps tables and checkpoint across restarts [default: in memory].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

/// Runs local mode until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), CommandError> {
    telemetry::init_logging(false);
    let stop = shutdown_token()?;
    let manifest = read_manifest(options.file.as_deref())?;
    let domain = manifest.spec.web_socket.domain.clone();
    let name = manifest.metadata.name.clone().unwrap_or_default();
    let local = local::start(local::Options {
        manifest,
        listen_address: options.listen_address,
        dynamodb_port: options.dynamodb_port,
        port: options.port,
        keys: options.keys,
        data_dir: options.data_dir,
    })
    .await?;
    let factory = worker_factory(&local, domain).await?;
    let spec = match factory.validate(&local.spec)? {
        // No SQS queue is emulated.
        Validated::Active(spec) => WorkerSpec { dead_letter_queue: None, ..*spec },
        Validated::Suspended => {
            return Err("the manifest is suspended; set suspend to false".into());
        }
    };
    let checkpoint_file = local.checkpoint_file.clone();
    let checkpoints = checkpoint_file.map_or_else(FileStore::in_memory, FileStore::in_file);
    let worker = factory.worker("local", &name, Arc::new(spec), Arc::new(checkpoints));
    let (health, mut snapshots) = Health::new();
    let print_changes = async {
        let mut has_printed_hints = false;
        while snapshots.changed().await.is_ok() {
            let snapshot = snapshots.borrow_and_update().clone();
            print_problems(&snapshot);
            if !has_printed_hints && is_ready(&snapshot) {
                print_hints(&local);
                has_printed_hints = true;
            }
        }
    };
    tokio::select! {
        () = worker(Arc::new(health), stop) => {}
        () = print_changes => {}
    }
    local.stop().await?;
    Ok(())
}

/// Creates the factory of the worker. It maps the domain of the manifest to the local gateway.
async fn worker_factory(local: &Local, domain: String) -> Result<WorkerFactory, CommandError> {
    let endpoints =
        Endpoints { allowed: vec![domain], template: Some(local.gateway_endpoint.clone()) };
    let rate_limiters = RateLimiters::new(GET_RECORDS_PER_SECOND, POSTS_PER_SECOND);
    Ok(WorkerFactory::local(&local.dynamodb_endpoint, endpoints, rate_limiters).await?)
}

fn is_ready(snapshot: &HealthSnapshot) -> bool {
    snapshot.phase == Phase::Reading && snapshot.problems.is_empty()
}

fn print_problems(snapshot: &HealthSnapshot) {
    for problem in snapshot.problems.values().chain(snapshot.warnings.values()) {
        print_error(format_args!("{}: {}", problem.reason.as_str(), problem.message));
    }
}

fn print_hints(local: &Local) {
    for line in local.hints() {
        print(line);
    }
}
