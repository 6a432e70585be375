//! A day of a large table, read over HTTP with the real client.
//!
//! 10,000 shards roll and split. The worker reads each to its end, in order, while 10,000 shards of the day
//! before are still listed. Its memory does not grow.
//!
//! The worker starts at midnight from the checkpoint of an earlier one. Its clock is paused, and the service
//! uses the same clock. The clock stands still while a request is in flight, and then moves to the next
//! timer. The test advances it whenever the worker has caught up.
//!
//! This is a suite of its own, because it measures the memory of its process.

mod observer;

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use fastrand::Rng;
use futures::future::BoxFuture;
use jiff::Timestamp;
use observer::{ObservedStreams, Observer, expected_progress};
use stream_notifier::aws::{AwsConfig, DynamoDbStreams};
use stream_notifier::checkpoint::{
    Checkpoint, CheckpointStore, ResourceVersion, StartKind, StartPoint, StoreError,
    StoredCheckpoint,
};
use stream_notifier::model::{Position, ShardId, StreamLabel};
use stream_notifier::streams::{InitialPosition, StreamSource};
use stream_notifier::telemetry::{HealthSnapshot, Metrics, Phase};
use stream_notifier::worker::{Backends, run_worker};
use stream_notifier_tests::fakes::{FakeConnections, worker_config};
use stream_notifier_tests::streams_model::{Clock, HttpStreams, Key, Model, Settings, Shard};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;

/// Midnight between the two days: 2026-11-22T00:00:00Z.
const MIDNIGHT_MS: u64 = 1_795_305_600_000;
const HOUR_MS: u64 = 3_600_000;
/// Rounds per day. In each, every item is written and every shard rolls.
const ROUNDS: u64 = 12;
const ROUND_MS: u64 = 24 * HOUR_MS / ROUNDS;
/// Rounds by which the worker falls behind before it catches up.
const STEP: usize = 3;
const INITIAL_SHARDS: usize = 780;
/// The filter skips every second item.
const ITEMS: usize = 2_000;
const CONNECTIONS: usize = 10;
const POLL_INTERVAL: Duration = Duration::from_secs(300);
/// Limit of each wait, on the paused clock.
const TIMEOUT: Duration = Duration::from_secs(3600);
/// Memory that 5,000 more shards and their records may add to this process.
const MAX_GROWTH_BYTES: usize = 8 << 20;
/// The size limit of a ConfigMap.
const MAX_CHECKPOINT_BYTES: usize = 1 << 20;

/// A table with two days of records, whose clock is set back to the midnight between them.
fn two_days() -> Model {
    let settings = Settings { shards: INITIAL_SHARDS, roll_ms: None, ..Settings::default() };
    let mut model = Model::new(settings, Rng::with_seed(1), MIDNIGHT_MS - ROUNDS * ROUND_MS);
    for round in 1..=2 * ROUNDS {
        for (n, item) in (0..ITEMS).map(key).enumerate() {
            model.advance_to(round_start(round) + n as u64);
            model.write(&item, Some(round));
        }
        model.advance_to(round_start(round) + ROUND_MS / 2);
        for (n, shard) in model.open_shards().into_iter().enumerate() {
            if round % ROUNDS == 5 && n % 20 == 0 { model.split(shard) } else { model.roll(shard) }
        }
    }
    model.rewind_to(round_start(ROUNDS + 1) - 1);
    model
}

/// The start of a round, in milliseconds. The rounds of the second day begin with `ROUNDS + 1`.
fn round_start(round: u64) -> u64 {
    MIDNIGHT_MS + round * ROUND_MS - (ROUNDS + 1) * ROUND_MS
}

fn key(item: usize) -> Key {
    match item % 2 {
        0 => Key::target(&item.to_string(), &format!("hoge{}", item % CONNECTIONS)),
        _ => Key { pk: format!("other#{item}"), sk: "other".to_owned() },
    }
}

/// The service, and the clock that the worker shares.
#[derive(Debug)]
struct Service {
    model: Arc<Mutex<Model>>,
    clock: Clock,
}

impl Service {
    /// The table at the current time.
    fn table(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model.lock().unwrap();
        model.advance_to(self.clock.now());
        model
    }

    /// Starts the server and returns its address. Its thread uses the real clock.
    fn serve(&self) -> Result<String> {
        let (endpoint_tx, endpoint_rx) = mpsc::channel();
        let model = self.model.clone();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            runtime.expect("the runtime must start").block_on(async {
                let server = HttpStreams::start(model, None).await.expect("the server must start");
                endpoint_tx.send(server.endpoint.clone()).expect("the test must wait");
                std::future::pending::<()>().await
            });
        });
        Ok(endpoint_rx.recv()?)
    }
}

/// A checkpoint, and its maximum size in bytes.
#[derive(Debug)]
struct Store(Mutex<(Checkpoint, usize)>);

impl Store {
    /// Stores the checkpoint of a worker that has read everything until now.
    fn new(model: &Model) -> Self {
        let stream = &model.streams()[0].label;
        let is_open = |shard: &&Shard| {
            shard.opened <= model.now() && shard.closed.is_none_or(|closed| closed > model.now())
        };
        // No record was written since these shards were opened. Their ancestors are finished by definition.
        let open = model.shards().iter().filter(is_open);
        let id = |shard: &Shard| ShardId::new(&StreamLabel::new(stream), &*shard.id);
        let now = Timestamp::from_millisecond(model.now() as i64).expect("a valid time");
        let start = StartPoint {
            stream: model.stream_arn(stream),
            kind: StartKind::TrimHorizon,
            at: Timestamp::UNIX_EPOCH,
        };
        let shards = open.map(|shard| (id(shard), Position::TrimHorizon)).collect();
        let checkpoint =
            Checkpoint { holder: "earlier".to_owned(), epoch: 1, start, read_at: now, shards };
        Self(Mutex::new((checkpoint, 0)))
    }
}

impl CheckpointStore for Store {
    fn load(&self) -> BoxFuture<'_, Result<Option<StoredCheckpoint>, StoreError>> {
        Box::pin(async move {
            let data = self.0.lock().unwrap().0.to_data();
            Ok(Some(StoredCheckpoint { data, version: ResourceVersion("any".to_owned()) }))
        })
    }

    fn save<'a>(
        &'a self,
        data: &'a BTreeMap<String, String>,
        _: Option<&'a ResourceVersion>,
    ) -> BoxFuture<'a, Result<ResourceVersion, StoreError>> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            let size = data.iter().map(|(key, value)| key.len() + value.len()).sum();
            state.0 = Checkpoint::from_data(data).expect("a valid checkpoint");
            state.1 = state.1.max(size);
            Ok(ResourceVersion("any".to_owned()))
        })
    }
}

/// The resident memory of this process, in bytes.
fn resident_memory() -> Result<usize> {
    let pages = fs::read_to_string("/proc/self/statm")?;
    let resident = pages.split(' ').nth(1).context("resident pages")?;
    Ok(resident.parse::<usize>()? * 4096)
}

/// A running worker and its backends.
struct Day {
    service: Arc<Service>,
    observer: Arc<Observer>,
    store: Arc<Store>,
    health: watch::Receiver<HealthSnapshot>,
    stop: CancellationToken,
    worker: JoinHandle<()>,
}

impl Day {
    async fn start() -> Result<Self> {
        let model = two_days();
        let (label, table) = (StreamLabel::new(&model.streams()[0].label), model.table_arn());
        let (clock, store) = (Clock::starting_at(model.now()), Arc::new(Store::new(&model)));
        let service = Arc::new(Service { clock, model: Arc::new(Mutex::new(model)) });
        let aws = AwsConfig::local(&service.serve()?).await;
        let observer = Arc::new(Observer::default());
        let connections = FakeConnections::new(1_000);
        for n in 0..CONNECTIONS {
            connections.put_new(&format!("hoge{n}"), &format!("hoge{n}"));
        }
        let backends = Backends {
            streams: Arc::new(ObservedStreams {
                streams: DynamoDbStreams::new(&aws, "eu-west-1", &table),
                service: service.clone(),
                observer: observer.clone(),
                in_flight: Mutex::default(),
            }),
            connections: Arc::new(connections),
            gateway: observer.clone(),
            checkpoints: store.clone(),
            dead_letters: None,
        };
        let (mut config, health) =
            worker_config("day", InitialPosition::TrimHorizon, &Metrics::default());
        (config.consumer.source, config.consumer.table) = (StreamSource::Stream(label), table);
        config.consumer.poll_interval = POLL_INTERVAL;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let worker = tokio::spawn(async move { run_worker(&backends, &config, &stopped).await });
        Ok(Self { service, observer, store, health, stop, worker })
    }

    async fn wait_until(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let start = Instant::now();
        while !condition() {
            let violations = self.observer.violations.lock().unwrap().clone();
            ensure!(violations.is_empty(), "{violations:#?}");
            let (progress, health) = (self.observer.progress(), self.health.borrow());
            let is_late = start.elapsed() >= TIMEOUT;
            ensure!(!is_late, "{what}: not within {TIMEOUT:?}, {progress:?}, {health:?}");
            drop(health);
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }

    /// Waits until the worker sends no DescribeStream request for 10 s. A request that waits for the rate
    /// limiter while the test advances the clock would no longer wait.
    async fn wait_until_listings_end(&self) {
        let requests = || self.service.table().counts()["DescribeStream"];
        let mut before = 0;
        while before < requests() {
            before = requests();
            sleep(Duration::from_secs(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reads_ten_thousand_shards_to_their_ends_in_order() -> Result<()> {
    let day = Day::start().await?;
    day.wait_until("the worker reads", || day.health.borrow().phase == Phase::Reading).await?;
    let mut memory = vec![];
    for round in (STEP..=ROUNDS as usize).step_by(STEP) {
        // Between the last roll of this round and the first record of the next one.
        let end = round_start(ROUNDS + round as u64) + ROUND_MS / 4 * 3;
        advance(Duration::from_millis(end - day.service.clock.now())).await;
        let expected = expected_progress(&day.service.table());
        let is_read = || day.observer.progress() == expected;
        day.wait_until(&format!("progress {expected:?}"), is_read).await?;
        day.wait_until_listings_end().await;
        memory.push(resident_memory()?);
    }
    day.stop.cancel();
    day.worker.await?;

    let [started, finished, messages] = day.observer.progress();
    assert!(started >= 10_000 && finished >= 10_000, "{started} started, {finished} finished");
    assert_eq!(messages, ITEMS / 2 * ROUNDS as usize);
    let violations = day.observer.violations.lock().unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
    assert_eq!(day.health.borrow().gap, None);
    let counts = day.service.table().counts().clone();
    assert_eq!(counts.get("DescribeStream throttled"), None, "{counts:#?}");
    let checkpoint = day.store.0.lock().unwrap().1;
    assert!(checkpoint < MAX_CHECKPOINT_BYTES, "a checkpoint had {checkpoint} bytes");
    // Every part of the worker was in use by the end of the first half. After that, each new shard
    // replaces one of the first day.
    let (half, end) = (memory[memory.len() / 2 - 1], memory[memory.len() - 1]);
    assert!(end < half + MAX_GROWTH_BYTES, "the memory grew: {memory:?}");
    println!(
        "{started} shards, {messages} messages, memory {memory:?}, checkpoint {checkpoint}, {counts:#?}"
    );
    Ok(())
}
