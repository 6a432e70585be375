//! `stream-notifier local`: the whole path on one machine, with nothing installed.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;
use serde_json::Value;

use super::shutdown::shutdown_token;
use crate::api::StreamNotifier;
use crate::aws::AwsConfig;
use crate::cli::CommandError;
use crate::local::Local;
use crate::rules::EvaluatorPool;
use crate::telemetry::{Health, HealthSnapshot, Metrics, Phase};
use crate::worker::{Endpoints, RateLimiters, Validated, WorkerFactory, WorkerSpec};
use crate::{local, telemetry};

const EXAMPLE: &str = include_str!("../../../examples/target-attribute.yaml");

/// Nobody bills them here.
const GET_RECORDS_PER_SECOND: u32 = 1000;
const POSTS_PER_SECOND: u32 = 5_000;

/// The local mode's flags.
#[derive(Debug, Args)]
pub struct Options {
    /// The StreamNotifier to run [default: the example target-attribute, built in].
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,

    /// Port of the embedded DynamoDB, on 127.0.0.1; 0 is any free one.
    #[arg(long, default_value_t = 8000)]
    dynamodb_port: u16,

    /// Port of gateway, page and WebSockets, on 127.0.0.1; 0 is any free one.
    #[arg(long, default_value_t = 8080)]
    port: u16,

    /// The table's key attributes, partition key first, where the manifest does not tell.
    #[arg(long = "key", value_name = "NAME")]
    keys: Vec<String>,

    /// Keep tables and checkpoint here [default: in memory].
    #[arg(long, value_name = "DIRECTORY")]
    data_dir: Option<PathBuf>,
}

/// Runs until SIGTERM or SIGINT.
pub async fn run(options: Options) -> Result<(), CommandError> {
    telemetry::init_logging(false);
    let stop = shutdown_token()?;
    let manifest = manifest(options.file)?;
    let domain = manifest.spec.web_socket.domain.clone();
    let name = manifest.metadata.name.clone().unwrap_or_default();
    let local = local::start(local::Options {
        manifest,
        dynamodb_port: options.dynamodb_port,
        port: options.port,
        keys: options.keys,
        data_dir: options.data_dir,
    })
    .await?;
    let factory = factory(&local, domain).await?;
    let spec = match factory.validate(&local.spec)? {
        // There is no emulated SQS.
        Validated::Active(spec) => WorkerSpec { dead_letter_queue: None, ..*spec },
        Validated::Suspended => {
            return Err("the manifest has suspend: true, so that nothing is read".into());
        }
    };
    let checkpoints = Arc::new(local.checkpoint.clone());
    let worker = factory.worker("local", &name, Arc::new(spec), checkpoints);
    let (health, mut pictures) = Health::new();
    let told = async {
        let mut ready = false;
        while pictures.changed().await.is_ok() {
            ready = print_health(&pictures.borrow_and_update().clone(), &local, ready);
        }
    };
    tokio::select! {
        () = worker(Arc::new(health), stop) => {}
        () = told => {}
    }
    local.stop().await?;
    Ok(())
}

fn manifest(file: Option<PathBuf>) -> Result<StreamNotifier, CommandError> {
    let Some(file) = file else {
        return Ok(serde_saphyr::from_str(EXAMPLE)?);
    };
    let text = std::fs::read_to_string(&file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    parse(&text)
        .map_err(|problem| format!("{} is not a StreamNotifier: {problem}", file.display()).into())
}

/// A manifest, as strictly as an API server takes it where a slip would be overlooked.
fn parse(text: &str) -> Result<StreamNotifier, String> {
    let written: Value = serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    for (field, expected) in
        [("apiVersion", "streamnotifier.dev/v1alpha1"), ("kind", "StreamNotifier")]
    {
        if written[field] != expected {
            return Err(format!("{field} must be {expected}"));
        }
    }
    let notifier: StreamNotifier =
        serde_saphyr::from_str(text).map_err(|error| error.to_string())?;
    let known = serde_json::to_value(&notifier).map_err(|error| error.to_string())?;
    match find_unknown_field(&written["spec"], &known["spec"], "spec") {
        Some(field) => Err(format!("there is no field {field}")),
        None => Ok(notifier),
    }
}

/// The first field that was written and is not known.
fn find_unknown_field(written: &Value, known: &Value, path: &str) -> Option<String> {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            written.iter().find_map(|(name, value)| match known.get(name) {
                Some(known) => find_unknown_field(value, known, &format!("{path}.{name}")),
                // Left out where it is empty.
                None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => None,
                None => Some(format!("{path}.{name}")),
            })
        }
        (Value::Array(written), Value::Array(known)) => {
            let mut pairs = written.iter().zip(known).enumerate();
            pairs.find_map(|(n, (written, known))| {
                find_unknown_field(written, known, &format!("{path}[{n}]"))
            })
        }
        _ => None,
    }
}

/// Makes the worker: the spec's domain is the local gateway.
async fn factory(local: &Local, domain: String) -> Result<WorkerFactory, CommandError> {
    Ok(WorkerFactory {
        aws: AwsConfig::local(&local.dynamodb_endpoint).await,
        endpoints: Endpoints {
            allowed: vec![domain],
            template: Some(local.gateway_endpoint.clone()),
        },
        evaluators: EvaluatorPool::on_threads(None)?,
        rate_limiters: RateLimiters::new(GET_RECORDS_PER_SECOND, POSTS_PER_SECOND),
        holder: "local".to_owned(),
        metrics: Metrics::default(),
    })
}

/// Prints what to paste once everything reads, and every trouble; `true` once printed.
fn print_health(picture: &HealthSnapshot, local: &Local, printed: bool) -> bool {
    for trouble in picture.problems.values().chain(picture.warnings.values()) {
        eprintln!("{}: {}", trouble.reason.as_str(), trouble.message);
    }
    let ready = picture.phase == Phase::Reading && picture.problems.is_empty();
    if ready && !printed {
        for line in local.hints() {
            println!("{line}");
        }
    }
    printed || ready
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_in_a_manifest_is_not_overlooked() {
        assert!(parse(EXAMPLE).is_ok());
        for (from, to, says) in [
            ("keyFilters:", "keyFilter:", "there is no field spec.keyFilter"),
            ("{key: PK, contains", "{key: PK, contain", "spec.keyFilters[0].contain"),
            ("kind: StreamNotifier", "kind: StreamNotifer", "kind must be StreamNotifier"),
            ("v1alpha1", "v1", "apiVersion must be streamnotifier.dev/v1alpha1"),
        ] {
            let problem = parse(&EXAMPLE.replace(from, to)).unwrap_err();
            assert!(problem.contains(says), "{problem}");
        }
    }
}
