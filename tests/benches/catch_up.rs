//! How fast a notifier reads what has accumulated, beside the SDK alone, and what a reader keeps in
//! memory beyond its pages. The service is another process, whose pages are made beforehand.

mod support;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::header::DATE;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::routing::post;
use fastrand::Rng;
use stream_notifier::aws::{ApiGateway, Aws, DynamoDbStreams};
use stream_notifier::delivery::{Answer, Gateway};
use stream_notifier::record::{ShardId, StreamLabel};
use stream_notifier::stream::{
    Follow, Listed, ReadFrom, RecordPage, ShardIterator, StreamError, StreamPage, Streams,
};
use stream_notifier::telemetry::Metrics;
use stream_notifier::worker::{Begin, Job, Neighbours, work};
use stream_notifier_tests::scripted::{MemoryStore, ScriptedConnections, job};
use stream_notifier_tests::simulated::{Key, Model, Settings, date, respond};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const RUNS: usize = 9;
const LIMIT: Duration = Duration::from_secs(120);
const SHARDS: usize = 4;
const RECORDS: usize = 200_000;
const BYTES: usize = 600;
/// One record in so many is delivered.
const DELIVERED: usize = 100;
/// Each has an item of its own.
const CONNECTIONS: usize = 20;
const BEGIN: u64 = 1_795_341_600_123;

#[tokio::main]
async fn main() -> Result<()> {
    if support::is_service() {
        return support::serve(service()).await;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let service = support::Service::start().await?;
    let client = support::bare_client(&service.endpoint);
    println!("{RECORDS} records of {BYTES} bytes on {SHARDS} shards, one of {DELIVERED} delivered");
    let (mut alone, mut notifiers) = (vec![], vec![]);
    // The first of each makes the pages and opens the connections, and is not counted.
    for run in 0..=RUNS {
        let sdk = Run::of(bare(&client)).await?;
        let notifier = Run::of(notifier(&service.endpoint)).await?;
        if run > 0 {
            alone.push(sdk);
            notifiers.push(notifier);
        }
    }
    let (sdk, notifier) = (Run::least(&alone), Run::least(&notifiers));
    let (sdk, notifier) = (sdk.context("runs")?, notifier.context("runs")?);
    sdk.print("SDK alone");
    notifier.print("notifier");
    let ratio =
        |what: fn(&Run) -> Duration| what(&sdk).as_secs_f64() / what(&notifier).as_secs_f64();
    println!(
        "of the SDK's pace: {:.2}, by processor time {:.2}",
        ratio(|it| it.time),
        ratio(|it| it.cpu)
    );
    let beyond = notifier.peak.saturating_sub(sdk.peak) / SHARDS;
    println!("a reader's memory beyond its pages: {} KiB", beyond / 1024);
    Ok(())
}

/// What reading everything took.
struct Run {
    time: Duration,
    cpu: Duration,
    /// The most memory that the process held meanwhile.
    peak: usize,
}

impl Run {
    async fn of(reading: impl Future<Output = Result<()>>) -> Result<Self> {
        support::forget_peak()?;
        let (begun, cpu) = (Instant::now(), support::cpu());
        reading.await?;
        let [_, peak] = support::memory()?;
        Ok(Self { time: begun.elapsed(), cpu: support::cpu() - cpu, peak })
    }

    /// The least of each: a machine that others use only ever adds to it.
    fn least(runs: &[Self]) -> Option<Self> {
        Some(Self {
            time: runs.iter().map(|run| run.time).min()?,
            cpu: runs.iter().map(|run| run.cpu).min()?,
            peak: runs.iter().map(|run| run.peak).min()?,
        })
    }

    fn print(&self, name: &str) {
        println!(
            "{name:>10}: {:.2} s, {:.0} records a second, processor {:.2} s, peak memory {} MiB",
            self.time.as_secs_f64(),
            RECORDS as f64 / self.time.as_secs_f64(),
            self.cpu.as_secs_f64(),
            self.peak >> 20,
        );
    }
}

/// A stream that was disabled, so that it has an end.
fn stream() -> Model {
    let mut settings =
        Settings { shards: SHARDS, roll_ms: None, enabling_ms: 1_000, ..Settings::default() };
    settings.throttling.describes = None;
    let mut model = Model::new(settings, Rng::with_seed(1), BEGIN);
    let keys: Vec<_> = (0..CONNECTIONS * DELIVERED).map(key).collect();
    for key in &keys {
        model.write(key, Some(1));
    }
    model.advance_to(BEGIN + 1_000);
    for n in 0..RECORDS {
        model.write(&keys[n % keys.len()], Some(1_000_000 + n as u64));
    }
    model.settings.filler_bytes = (BYTES - model.size(0)) / 2;
    model.disable();
    model
}

fn sk(connection: usize) -> String {
    format!("hoge{connection}")
}

fn key(n: usize) -> Key {
    match n % DELIVERED {
        0 => Key::target(&n.to_string(), &sk(n / DELIVERED)),
        _ => Key { pk: format!("order#{n}"), sk: "target_sk#hoge".to_owned() },
    }
}

/// What was answered to what.
type Answers = Arc<Mutex<(Model, HashMap<(String, Bytes), Bytes>)>>;

fn service() -> Router {
    let answers: Answers = Arc::new(Mutex::new((stream(), HashMap::new())));
    Router::new()
        .route("/api/@connections/{id}", post(async || StatusCode::OK))
        .fallback(answer)
        .with_state(answers)
}

async fn answer(
    State(answers): State<Answers>,
    headers: HeaderMap,
    body: Bytes,
) -> ([(HeaderName, String); 1], Bytes) {
    let target = headers.get("x-amz-target").and_then(|target| target.to_str().ok());
    let target = target.unwrap_or_default().to_owned();
    let mut answers = answers.lock().unwrap();
    let (model, answers) = &mut *answers;
    let date = [(DATE, date(model.now()))];
    let make = |(target, body): &(String, Bytes)| respond(model, target, body).1.into();
    (date, answers.entry((target, body)).or_insert_with_key(make).clone())
}

/// Reads everything with the SDK, each shard in a task of its own, and does nothing with it.
async fn bare(client: &aws_sdk_dynamodbstreams::Client) -> Result<()> {
    let streams = client.list_streams().send().await?;
    let arn = streams.streams().first().and_then(|it| it.stream_arn()).context("a stream")?;
    let described = client.describe_stream().stream_arn(arn).send().await?;
    let mut readers = JoinSet::new();
    for shard in described.stream_description().context("a description")?.shards() {
        let iterator = client
            .get_shard_iterator()
            .stream_arn(arn)
            .shard_id(shard.shard_id().context("an id")?)
            .shard_iterator_type(ShardIteratorType::TrimHorizon);
        let client = client.clone();
        readers.spawn(async move {
            let mut next = iterator.send().await?.shard_iterator;
            let mut records = 0;
            while let Some(iterator) = next {
                let page = client.get_records().shard_iterator(iterator).send().await?;
                records += page.records().len();
                next = page.next_shard_iterator;
            }
            anyhow::Ok(records)
        });
    }
    let mut records = 0;
    for read in readers.join_all().await {
        records += read?;
    }
    ensure!(records == RECORDS, "{records} records");
    Ok(())
}

/// Reads everything with a whole worker, which delivers what matches.
async fn notifier(endpoint: &str) -> Result<()> {
    let aws = Aws::local(endpoint).await;
    let table = "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev";
    let streams = DynamoDbStreams::new(&aws, "eu-west-1", table);
    let label = streams.streams().await?.pop().context("a stream")?;
    let table_of_connections = ScriptedConnections::new(1_000);
    for n in 0..CONNECTIONS {
        table_of_connections.put_new(&format!("L0SM9cOFvHcC{n:03}="), &sk(n));
    }
    let done = Arc::new(Done::default());
    let neighbours = Neighbours {
        streams: Arc::new(Watched { streams, done: done.clone() }),
        connections: Arc::new(table_of_connections),
        gateway: Arc::new(Counted {
            gateway: ApiGateway::new(&aws, "eu-west-1", &format!("{endpoint}/api")),
            done: done.clone(),
        }),
        store: Arc::new(MemoryStore::default()),
    };
    let (job, _pictures) = job("bench", Begin::TrimHorizon, &Metrics::default());
    let job = Job { follow: Follow::Stream(label), table: table.to_owned(), ..job };
    let stop = CancellationToken::new();
    let told = stop.clone();
    let worker = tokio::spawn(async move { work(&neighbours, &job, &told).await });
    timeout(LIMIT, done.all.notified()).await.context("it does not come to an end")?;
    stop.cancel();
    worker.await?;
    ensure!(done.posts.load(Ordering::Relaxed) == RECORDS / DELIVERED);
    Ok(())
}

#[derive(Default)]
struct Done {
    ends: AtomicUsize,
    posts: AtomicUsize,
    all: Notify,
}

impl Done {
    fn look(&self) {
        let ends = self.ends.load(Ordering::Relaxed);
        if ends == SHARDS && self.posts.load(Ordering::Relaxed) == RECORDS / DELIVERED {
            self.all.notify_one();
        }
    }
}

/// The real client; shards that come to their ends are counted.
struct Watched {
    streams: DynamoDbStreams,
    done: Arc<Done>,
}

impl Streams for Watched {
    async fn streams(&self) -> Result<Vec<StreamLabel>, StreamError> {
        self.streams.streams().await
    }

    async fn describe(
        &self,
        stream: &StreamLabel,
        listed: Listed<'_>,
        after: Option<&ShardId>,
    ) -> Result<StreamPage, StreamError> {
        self.streams.describe(stream, listed, after).await
    }

    async fn iterator(
        &self,
        shard: &ShardId,
        from: &ReadFrom,
    ) -> Result<ShardIterator, StreamError> {
        self.streams.iterator(shard, from).await
    }

    async fn records(&self, iterator: &ShardIterator) -> Result<RecordPage, StreamError> {
        let page = self.streams.records(iterator).await?;
        self.done.ends.fetch_add(usize::from(page.next.is_none()), Ordering::Relaxed);
        self.done.look();
        Ok(page)
    }
}

/// The real client; posts that arrive are counted.
struct Counted {
    gateway: ApiGateway,
    done: Arc<Done>,
}

impl Gateway for Counted {
    async fn post(&self, connection: &str, message: &Bytes) -> Answer {
        let answer = self.gateway.post(connection, message).await;
        let arrived = matches!(answer, Answer::Status { status: 200, .. });
        self.done.posts.fetch_add(usize::from(arrived), Ordering::Relaxed);
        self.done.look();
        answer
    }

    async fn disconnect(&self, connection: &str) -> Answer {
        self.gateway.disconnect(connection).await
    }
}
