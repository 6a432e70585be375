//! How soon a change is posted at the default settings, and what a notifier costs while nothing
//! happens, beside a plain loop that asks every shard each 250 ms. The service and the WebSocket API
//! are another process, by whose clock all is measured.

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
use stream_notifier_tests::fakes::{FakeConnections, MemoryStore, job};
use stream_notifier_tests::http;
use stream_notifier_tests::streams_model::{Clock, Key, Model, Settings, date, respond};
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, sleep};
use tokio_util::sync::CancellationToken;

const SHARDS: usize = 4;
/// So long nothing happens, in each turn of the loop and of the notifier.
const IDLE: Duration = Duration::from_secs(20);
/// After so long the connections are open, and nothing is left of a beginning's haste.
const SETTLED: Duration = Duration::from_secs(15);
const TURNS: usize = 3;
/// So long there are changes.
const BUSY: Duration = Duration::from_secs(150);
const BETWEEN_CHANGES: Duration = Duration::from_millis(500);
const ITEMS: u64 = 64;
const PLAIN_INTERVAL: Duration = Duration::from_millis(250);
const LIMIT: Duration = Duration::from_secs(30);
const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev";

#[tokio::main]
async fn main() -> Result<()> {
    if support::is_service() {
        return support::serve(Service::routes()).await;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = support::Service::start().await?;
    println!("{SHARDS} shards without changes, the least of {TURNS} turns of {IDLE:?} each");
    let (mut of_loop, mut of_notifier) = (vec![], vec![]);
    // They take turns, so that a busy machine is as busy for both.
    for _ in 0..TURNS {
        let readers = plain_loop(&service.endpoint).await?;
        of_loop.push(idle(&service.endpoint).await?);
        drop(readers);
        let stop = CancellationToken::new();
        let worker = notifier(&service.endpoint, &stop).await?;
        of_notifier.push(idle(&service.endpoint).await?);
        stop.cancel();
        worker.await?;
    }
    print_least("250 ms loop", &of_loop);
    print_least("notifier", &of_notifier);

    let stop = CancellationToken::new();
    let worker = notifier(&service.endpoint, &stop).await?;
    sleep(SETTLED).await;
    http::post(&format!("{}/changes", service.endpoint), "").await?.success()?;
    let (cpu, calls) = (support::cpu(), calls(&service.endpoint).await?);
    sleep(BUSY + Duration::from_secs(2)).await;
    let figures = http::get(&format!("{}/figures", service.endpoint)).await?.json()?;
    let calls = self::calls(&service.endpoint).await? - calls;
    stop.cancel();
    worker.await?;

    let mut delays: Vec<f64> = serde_json::from_value(figures["delays"].clone())?;
    delays.sort_by(f64::total_cmp);
    ensure!(figures["written"] == delays.len(), "{} of {}", delays.len(), figures["written"]);
    let at = |share: f64| delays[((delays.len() - 1) as f64 * share).round() as usize];
    println!(
        "{} changes in {BUSY:?}: from the write to the post p50 {:.0} ms, p90 {:.0} ms, p99 {:.0} ms, longest {:.0} ms; {:.0} calls a minute, processor {:.1} ms a second",
        delays.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
        calls as f64 / BUSY.as_secs_f64() * 60.0,
        (support::cpu() - cpu).as_secs_f64() * 1e3 / BUSY.as_secs_f64(),
    );
    Ok(())
}

/// The calls a minute, and the milliseconds of the processor a second, in a while in which nothing
/// happens.
async fn idle(endpoint: &str) -> Result<[f64; 2]> {
    sleep(SETTLED).await;
    let (cpu, before) = (support::cpu(), calls(endpoint).await?);
    sleep(IDLE).await;
    let calls = (calls(endpoint).await? - before) as f64;
    let cpu = (support::cpu() - cpu).as_secs_f64();
    Ok([calls / IDLE.as_secs_f64() * 60.0, cpu * 1e3 / IDLE.as_secs_f64()])
}

fn print_least(name: &str, turns: &[[f64; 2]]) {
    let [calls, cpu] =
        [0, 1].map(|n| turns.iter().map(|turn| turn[n]).fold(f64::INFINITY, f64::min));
    println!("{name:>12}: {calls:.0} calls a minute, processor {cpu:.2} ms a second");
}

/// How many calls the service has had.
async fn calls(endpoint: &str) -> Result<u64> {
    let figures = http::get(&format!("{endpoint}/figures")).await?.json()?;
    figures["calls"].as_u64().context("a number")
}

/// A loop for each shard, as it is written on a Monday morning.
async fn plain_loop(endpoint: &str) -> Result<JoinSet<()>> {
    let client = support::bare_client(endpoint);
    let mut readers = JoinSet::new();
    for iterator in support::iterators(&client, ShardIteratorType::Latest).await? {
        let mut next = iterator.send().await?.shard_iterator;
        let client = client.clone();
        readers.spawn(async move {
            while let Some(iterator) = next.take() {
                let page = client.get_records().shard_iterator(iterator).send().await;
                next = page.expect("it is answered").next_shard_iterator;
                sleep(PLAIN_INTERVAL).await;
            }
        });
    }
    Ok(readers)
}

/// A whole worker that reads.
async fn notifier(endpoint: &str, stop: &CancellationToken) -> Result<tokio::task::JoinHandle<()>> {
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
    let (mut job, pictures) = job("bench", InitialPosition::Latest, &Metrics::default());
    (job.consumer.source, job.consumer.table) = (StreamSource::Stream(label), TABLE.to_owned());
    let told = stop.clone();
    let worker = tokio::spawn(async move { run_worker(&backends, &job, &told).await });
    let begun = Instant::now();
    while pictures.borrow().phase != Phase::Reading {
        ensure!(begun.elapsed() < LIMIT, "it does not begin: {:?}", pictures.borrow());
        sleep(Duration::from_millis(10)).await;
    }
    Ok(worker)
}

/// The table, whose clock runs, and the WebSocket API.
struct Service {
    model: Mutex<Model>,
    clock: Clock,
    /// When each value was written.
    written: Mutex<BTreeMap<u64, Instant>>,
    /// From the write to the post, in milliseconds.
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
            .route("/api/@connections/{id}", post(Self::posted))
            .route("/changes", post(Self::change))
            .route("/figures", get(Self::figures))
            .fallback(Self::answer)
            .with_state(service)
    }

    async fn answer(
        State(service): State<Arc<Self>>,
        headers: HeaderMap,
        body: Bytes,
    ) -> ([(HeaderName, String); 1], String) {
        let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
        let mut model = service.model.lock().unwrap();
        model.advance_to(service.clock.now());
        let (_, answer) = respond(&mut model, target.unwrap_or_default(), &body);
        ([(DATE, date(model.now()))], answer)
    }

    /// Begins to change items.
    async fn change(State(service): State<Arc<Self>>) {
        tokio::spawn(async move {
            let mut rng = Rng::with_seed(2);
            let mut ticks = interval(BETWEEN_CHANGES);
            for value in 1..=(BUSY.as_millis() / BETWEEN_CHANGES.as_millis()) as u64 {
                ticks.tick().await;
                // At any time of its half second, so that it meets every moment between two reads.
                sleep(BETWEEN_CHANGES.mul_f64(rng.f64() * 0.9)).await;
                let mut model = service.model.lock().unwrap();
                model.advance_to(service.clock.now());
                service.written.lock().unwrap().insert(value, Instant::now());
                model.write(&key(rng.u64(..ITEMS)), Some(value));
            }
        });
    }

    async fn posted(State(service): State<Arc<Self>>, body: Bytes) {
        let body: Value = serde_json::from_slice(&body).unwrap_or_default();
        let value = body["value"].as_str().and_then(|value| value.parse().ok()).unwrap_or_default();
        if let Some(written) = service.written.lock().unwrap().get(&value) {
            service.delays.lock().unwrap().push(written.elapsed().as_secs_f64() * 1e3);
        }
    }

    async fn figures(State(service): State<Arc<Self>>) -> Json<Value> {
        let model = service.model.lock().unwrap();
        let calls = ["ListStreams", "DescribeStream", "GetShardIterator", "GetRecords"];
        let calls: u64 = calls.iter().filter_map(|call| model.counts().get(call)).sum();
        let (written, delays) =
            (service.written.lock().unwrap().len(), service.delays.lock().unwrap());
        Json(serde_json::json!({"calls": calls, "written": written, "delays": *delays}))
    }
}

fn key(item: u64) -> Key {
    Key::target(&item.to_string(), "hoge")
}
