//! The delay from a change to its post with the default settings, and the cost of an idle notifier.
//!
//! The cost is compared with a loop that polls each shard every 250 ms. The service and the WebSocket API
//! are another process, whose clock measures the delays.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::DATE;
use axum::http::{HeaderMap, HeaderName};
use axum::routing::{get, post};
use axum::{Json, Router};
use fastrand::Rng;
use serde_json::Value;
use stream_notifier::aws::{ApiGateway, AwsConfig, DynamoDbStreams};
use stream_notifier::model::StreamLabel;
use stream_notifier::streams::{InitialPosition, StreamSource, Streams as _};
use stream_notifier::telemetry::{Metrics, Phase};
use stream_notifier::worker::{Backends, run_worker};
use stream_notifier_tests::fakes::{FakeConnections, MemoryStore, worker_config};
use stream_notifier_tests::http;
use stream_notifier_tests::streams_model::{Clock, Key, Model, Settings, http_date, respond};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

const SHARDS: usize = 4;
/// The length of a measurement without changes.
const IDLE_WINDOW: Duration = Duration::from_secs(20);
/// The time until connections are open and the poll intervals have grown.
const WARM_UP: Duration = Duration::from_secs(15);
const RUNS: usize = 3;
/// The length of the measurement with changes.
const BUSY_WINDOW: Duration = Duration::from_secs(150);
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);
const ITEMS: u64 = 64;
const LOOP_POLL_INTERVAL: Duration = Duration::from_millis(250);
const START_TIMEOUT: Duration = Duration::from_secs(30);
const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev";

#[tokio::main]
async fn main() -> Result<()> {
    if support::is_service() {
        return support::serve(Service::routes()).await;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = support::Service::start().await?;
    println!("{SHARDS} shards without changes, minimum of {RUNS} runs of {IDLE_WINDOW:?}");
    let (mut loop_runs, mut notifier_runs) = (vec![], vec![]);
    // They run alternately, so that both see the same load of the machine.
    for _ in 0..RUNS {
        let readers = start_loop(&service.endpoint).await?;
        loop_runs.push(measure_idle(&service.endpoint).await?);
        drop(readers);
        let stop = CancellationToken::new();
        let worker = start_notifier(&service.endpoint, &stop).await?;
        notifier_runs.push(measure_idle(&service.endpoint).await?);
        stop.cancel();
        worker.await?;
    }
    print_minimum("250 ms loop", &loop_runs);
    print_minimum("notifier", &notifier_runs);

    let stop = CancellationToken::new();
    let worker = start_notifier(&service.endpoint, &stop).await?;
    sleep(WARM_UP).await;
    http::post(&format!("{}/changes", service.endpoint), "").await?.success()?;
    let (cpu, before) = (support::cpu_time(), request_count(&service.endpoint).await?);
    sleep(BUSY_WINDOW + Duration::from_secs(2)).await;
    let figures = http::get(&format!("{}/figures", service.endpoint)).await?.json()?;
    let requests = request_count(&service.endpoint).await? - before;
    stop.cancel();
    worker.await?;

    let mut delays: Vec<f64> = serde_json::from_value(figures["delays"].clone())?;
    delays.sort_by(f64::total_cmp);
    ensure!(figures["written"] == delays.len(), "{} of {}", delays.len(), figures["written"]);
    let percentile = |share: f64| delays[((delays.len() - 1) as f64 * share).round() as usize];
    println!(
        "{} changes in {BUSY_WINDOW:?}: delay p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, maximum {:.0} ms; {:.0} requests per minute, CPU time {:.1} ms per second",
        delays.len(),
        percentile(0.5),
        percentile(0.9),
        percentile(0.99),
        percentile(1.0),
        requests as f64 / BUSY_WINDOW.as_secs_f64() * 60.0,
        (support::cpu_time() - cpu).as_secs_f64() * 1e3 / BUSY_WINDOW.as_secs_f64(),
    );
    Ok(())
}

/// Measures requests per minute, and milliseconds of CPU time per second, without changes.
async fn measure_idle(endpoint: &str) -> Result<[f64; 2]> {
    sleep(WARM_UP).await;
    let (cpu, before) = (support::cpu_time(), request_count(endpoint).await?);
    sleep(IDLE_WINDOW).await;
    let requests = (request_count(endpoint).await? - before) as f64;
    let cpu = (support::cpu_time() - cpu).as_secs_f64();
    Ok([requests / IDLE_WINDOW.as_secs_f64() * 60.0, cpu * 1e3 / IDLE_WINDOW.as_secs_f64()])
}

fn print_minimum(name: &str, runs: &[[f64; 2]]) {
    let [requests, cpu] =
        [0, 1].map(|n| runs.iter().map(|run| run[n]).fold(f64::INFINITY, f64::min));
    println!("{name:>12}: {requests:.0} requests per minute, CPU time {cpu:.2} ms per second");
}

/// The number of requests that the service has received.
async fn request_count(endpoint: &str) -> Result<u64> {
    let figures = http::get(&format!("{endpoint}/figures")).await?.json()?;
    figures["requests"].as_u64().context("a number")
}

/// Starts a loop for each shard that polls it and discards the records.
async fn start_loop(endpoint: &str) -> Result<JoinSet<()>> {
    let client = support::bare_client(endpoint);
    let mut readers = JoinSet::new();
    for iterator in support::iterator_requests(&client, ShardIteratorType::Latest).await? {
        let mut next = iterator.send().await?.shard_iterator;
        let client = client.clone();
        readers.spawn(async move {
            while let Some(iterator) = next.take() {
                let page = client.get_records().shard_iterator(iterator).send().await;
                next = page.expect("a page").next_shard_iterator;
                sleep(LOOP_POLL_INTERVAL).await;
            }
        });
    }
    Ok(readers)
}

/// Starts a worker and waits until it has read every shard once.
async fn start_notifier(
    endpoint: &str,
    stop: &CancellationToken,
) -> Result<tokio::task::JoinHandle<()>> {
    let aws = AwsConfig::local(endpoint).await;
    let streams = DynamoDbStreams::new(&aws, "eu-west-1", TABLE);
    let label: StreamLabel = streams.list().await?.pop().context("a stream")?;
    let connections = FakeConnections::new(1_000);
    connections.put_new("L0SM9cOFvHcCAbc=", "hoge");
    let backends = Backends {
        streams: Arc::new(streams),
        connections: Arc::new(connections),
        gateway: Arc::new(ApiGateway::new(&aws, "eu-west-1", &format!("{endpoint}/api"))),
        checkpoints: Arc::new(MemoryStore::default()),
        dead_letters: None,
    };
    let (mut config, health) = worker_config("bench", InitialPosition::Latest, &Metrics::default());
    (config.consumer.source, config.consumer.table) =
        (StreamSource::Stream(label), TABLE.to_owned());
    let stopped = stop.clone();
    let worker = tokio::spawn(async move { run_worker(&backends, &config, &stopped).await });
    let start = Instant::now();
    while health.borrow().phase != Phase::Reading {
        ensure!(
            start.elapsed() < START_TIMEOUT,
            "the worker does not start: {:?}",
            health.borrow()
        );
        sleep(Duration::from_millis(10)).await;
    }
    Ok(worker)
}

/// The table and the WebSocket API, with the real clock.
struct Service {
    model: Mutex<Model>,
    clock: Clock,
    /// The time of the write of each value.
    written: Mutex<BTreeMap<u64, Instant>>,
    /// Delays from write to post, in milliseconds.
    delays: Mutex<Vec<f64>>,
}

impl Service {
    fn routes() -> Router {
        let begin = 1_795_341_600_123;
        let settings =
            Settings { shards: SHARDS, roll_ms: None, enabling_ms: 1, ..Settings::default() };
        let mut model = Model::new(settings, Rng::with_seed(1), begin);
        for item in 0..ITEMS {
            model.write(&key(item), Some(0));
        }
        let service = Arc::new(Self {
            clock: Clock::starting_at(begin + 1_000),
            model: Mutex::new(model),
            written: Mutex::default(),
            delays: Mutex::default(),
        });
        Router::new()
            .route("/api/@connections/{id}", post(Self::record_post))
            .route("/changes", post(Self::start_changes))
            .route("/figures", get(Self::figures))
            .fallback(Self::respond)
            .with_state(service)
    }

    async fn respond(
        State(service): State<Arc<Self>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> ([(HeaderName, String); 1], String) {
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let mut model = service.model.lock().unwrap();
        model.advance_to(service.clock.now());
        let (_, body) = respond(&mut model, target.unwrap_or_default(), &body);
        ([(DATE, http_date(model.now()))], body)
    }

    /// Starts to change items.
    async fn start_changes(State(service): State<Arc<Self>>) {
        tokio::spawn(async move {
            let mut rng = Rng::with_seed(2);
            let mut ticks = interval(CHANGE_INTERVAL);
            for value in 1..=(BUSY_WINDOW.as_millis() / CHANGE_INTERVAL.as_millis()) as u64 {
                ticks.tick().await;
                // A random delay, so that changes occur at every moment between two reads.
                sleep(CHANGE_INTERVAL.mul_f64(rng.f64() * 0.9)).await;
                let mut model = service.model.lock().unwrap();
                model.advance_to(service.clock.now());
                service.written.lock().unwrap().insert(value, Instant::now());
                model.write(&key(rng.u64(..ITEMS)), Some(value));
            }
        });
    }

    async fn record_post(State(service): State<Arc<Self>>, body: Bytes) {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let value = body["value"].as_str().and_then(|value| value.parse().ok()).unwrap_or_default();
        if let Some(written) = service.written.lock().unwrap().get(&value) {
            service.delays.lock().unwrap().push(written.elapsed().as_secs_f64() * 1e3);
        }
    }

    async fn figures(State(service): State<Arc<Self>>) -> Json<Value> {
        let model = service.model.lock().unwrap();
        let operations = ["ListStreams", "DescribeStream", "GetShardIterator", "GetRecords"];
        let requests: u64 =
            operations.iter().filter_map(|operation| model.counts().get(operation)).sum();
        let (written, delays) =
            (service.written.lock().unwrap().len(), service.delays.lock().unwrap());
        Json(serde_json::json!({"requests": requests, "written": written, "delays": *delays}))
    }
}

fn key(item: u64) -> Key {
    Key::target(&item.to_string(), "hoge")
}
