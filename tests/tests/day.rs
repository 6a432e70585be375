//! A day of a large table over HTTP with the real SDK: 10,000 shards that roll and split, read to the
//! end, in order, while as many of the day before are still listed, without the worker growing.
//!
//! The worker goes on at midnight from the checkpoint of an earlier one. Its clock is paused: it stands still while a call is under way, and moves to the next
//! timer once none is. The service's clock is the same. The test sets it ahead whenever the worker
//! has caught up.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, mpsc};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fastrand::Rng;
use futures::future::BoxFuture;
use jiff::Timestamp;
use serde_json::Value;
use stream_notifier::aws::{AwsConfig, DynamoDbStreams};
use stream_notifier::checkpoint::{
    Checkpoint, CheckpointStore, ResourceVersion, StartKind, StartPoint, StoreError,
    StoredCheckpoint,
};
use stream_notifier::delivery::{Gateway, PostResponse};
use stream_notifier::model::{Position, ShardId, StreamLabel};
use stream_notifier::streams::{
    InitialPosition, IteratorStart, RecordPage, ShardFilter, ShardIterator, StreamError,
    StreamPage, StreamSource, Streams,
};
use stream_notifier::telemetry::{HealthSnapshot, Metrics, Phase};
use stream_notifier::worker::{Backends, run_worker};
use stream_notifier_tests::fakes::{FakeConnections, job};
use stream_notifier_tests::streams_model::{
    Clock, HttpStreams, Key, Model, ModelRecord, Settings, Shard,
};
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, advance, sleep};
use tokio_util::sync::CancellationToken;

/// 2026-11-22T00:00:00Z
const MIDNIGHT: u64 = 1_795_305_600_000;
const HOUR: u64 = 3_600_000;
/// How often everything is written and every shard rolls.
const ROUNDS: u64 = 12;
const ROUND: u64 = 24 * HOUR / ROUNDS;
/// How many rounds the worker is left behind before it catches up.
const STEP: usize = 3;
const SHARDS_AT_ONCE: usize = 780;
/// Of these every second one is not the notifier's business.
const ITEMS: usize = 2_000;
const CONNECTIONS: usize = 10;
/// How often a quiet shard is asked.
const POLL: Duration = Duration::from_secs(300);
const LIMIT: Duration = Duration::from_secs(3600);
/// What 5,000 shards and their records may add to the memory of this process.
const GROWTH: usize = 8 << 20;
/// What a ConfigMap may hold.
const CHECKPOINT: usize = 1 << 20;

/// The day and the one before it, and the clock set back to the midnight between them.
fn two_days() -> Model {
    let settings = Settings { shards: SHARDS_AT_ONCE, roll_ms: None, ..Settings::default() };
    let mut model = Model::new(settings, Rng::with_seed(1), MIDNIGHT - ROUNDS * ROUND);
    for round in 1..=2 * ROUNDS {
        for (n, item) in (0..ITEMS).map(key).enumerate() {
            model.advance_to(begin(round) + n as u64);
            model.write(&item, Some(round));
        }
        model.advance_to(begin(round) + ROUND / 2);
        for (n, shard) in model.open_shards().into_iter().enumerate() {
            if round % ROUNDS == 5 && n % 20 == 0 { model.split(shard) } else { model.roll(shard) }
        }
    }
    model.rewind_to(begin(ROUNDS + 1) - 1);
    model
}

/// When a round begins; those of the day itself have the numbers from `ROUNDS` + 1 on.
fn begin(round: u64) -> u64 {
    MIDNIGHT + round * ROUND - (ROUNDS + 1) * ROUND
}

fn key(item: usize) -> Key {
    match item % 2 {
        0 => Key::target(&item.to_string(), &format!("hoge{}", item % CONNECTIONS)),
        _ => Key { pk: format!("other#{item}"), sk: "other".to_owned() },
    }
}

/// The service, and the clock of both sides.
#[derive(Debug)]
struct Service {
    model: Arc<Mutex<Model>>,
    clock: Clock,
}

impl Service {
    /// The table as it is now.
    fn now(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model.lock().unwrap();
        model.advance_to(self.clock.now());
        model
    }

    /// Its address. It runs on a thread of its own, by the real clock.
    fn serve(&self) -> Result<String> {
        let (told, endpoint) = mpsc::channel();
        let model = self.model.clone();
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let server = HttpStreams::start(model, None).await.expect("it listens");
                told.send(server.endpoint.clone()).expect("somebody asked");
                std::future::pending::<()>().await
            });
        });
        Ok(endpoint.recv()?)
    }
}

/// What the worker has done, and what was wrong with it.
#[derive(Debug, Default)]
struct Done {
    /// Shards of the day whose first iterator was asked for, and those whose last page was given.
    begun: Mutex<BTreeSet<usize>>,
    ended: Mutex<BTreeSet<usize>>,
    /// The last value of each item that was posted.
    posted: Mutex<BTreeMap<String, u64>>,
    messages: AtomicUsize,
    wrong: Mutex<Vec<String>>,
}

/// How much of the day was read: shards begun, shards ended, messages.
type SoFar = [usize; 3];

impl Done {
    fn so_far(&self) -> SoFar {
        let count = |shards: &Mutex<BTreeSet<usize>>| shards.lock().unwrap().len();
        [count(&self.begun), count(&self.ended), self.messages.load(Ordering::Relaxed)]
    }

    fn wrong(&self, what: String) {
        self.wrong.lock().unwrap().push(what);
    }

    /// A shard's parent comes first, unless it is of the day before: then it need not be read.
    fn begin(&self, model: &Model, shard: &ShardId) {
        let index = model.shard(shard.stream.as_str(), &shard.name).expect("it is listed");
        let is_of_day = |parent: &usize| model.shards()[*parent].closed >= Some(MIDNIGHT);
        let parent = model.shards()[index].parent.filter(is_of_day);
        if parent.is_some_and(|parent| !self.ended.lock().unwrap().contains(&parent)) {
            self.wrong(format!("{shard} was begun before its parent's end"));
        }
        if model.shards()[index].opened >= MIDNIGHT {
            self.begun.lock().unwrap().insert(index);
        }
    }

    fn end(&self, model: &Model, iterator: &ShardIterator) {
        let shard = model.shard_of(&iterator.0).expect("it was given");
        if model.shards()[shard].closed >= Some(MIDNIGHT) {
            self.ended.lock().unwrap().insert(shard);
        }
    }
}

/// Everything until now, were it read.
fn all_so_far(model: &Model) -> SoFar {
    let is_of_day = |at: u64| (MIDNIGHT..=model.now()).contains(&at);
    let matches = |record: &&ModelRecord| record.key.pk.starts_with("target_pk");
    [
        model.shards().iter().filter(|shard| is_of_day(shard.opened)).count(),
        model.shards().iter().filter(|shard| shard.closed.is_some_and(is_of_day)).count(),
        model.records().iter().filter(|it| is_of_day(it.created)).filter(matches).count(),
    ]
}

/// The real client. While a call is under way, the worker's clock stands still.
#[derive(Debug)]
struct Client {
    streams: DynamoDbStreams,
    service: Arc<Service>,
    done: Arc<Done>,
    under_way: Mutex<(usize, Option<mpsc::Sender<()>>)>,
}

impl Client {
    async fn call<T>(
        &self,
        call: impl Future<Output = Result<T, StreamError>>,
    ) -> Result<T, StreamError> {
        drop(self.service.now());
        self.hold_the_clock();
        let answer = call.await;
        self.let_it_go();
        answer
    }

    /// Tokio does not move a paused clock while a blocking task is running.
    fn hold_the_clock(&self) {
        let mut under_way = self.under_way.lock().unwrap();
        under_way.0 += 1;
        under_way.1.get_or_insert_with(|| {
            let (release, held) = mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || held.recv());
            release
        });
    }

    fn let_it_go(&self) {
        let mut under_way = self.under_way.lock().unwrap();
        under_way.0 -= 1;
        if under_way.0 == 0 {
            under_way.1 = None;
        }
    }
}

impl Streams for Client {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move { self.call(self.streams.list()).await })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move { self.call(self.streams.describe(stream, listed, after)).await })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            self.done.begin(&self.service.now(), shard);
            self.call(self.streams.get_iterator(shard, from)).await
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let page = self.call(self.streams.get_records(iterator)).await?;
            if page.next_iterator.is_none() {
                self.done.end(&self.service.now(), iterator);
            }
            Ok(page)
        })
    }
}

/// Every round has a value of its own, one more than the last.
impl Gateway for Done {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let text = String::from_utf8_lossy(message).into_owned();
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            let item = message["pk"].as_str().unwrap_or_default().to_owned();
            let expected =
                self.posted.lock().unwrap().get(&item).map_or(ROUNDS + 1, |last| last + 1);
            if message["value"].as_str() != Some(&expected.to_string())
                || message["sk"] != connection
            {
                self.wrong(format!("{text} to {connection} in place of {expected}"));
            }
            self.posted.lock().unwrap().insert(item, expected);
            self.messages.fetch_add(1, Ordering::Relaxed);
            PostResponse::Status { status: 200, names_connection: false }
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move { unreachable!("{connection} is never disconnected") })
    }
}

/// A checkpoint, and how large it was at most.
#[derive(Debug)]
struct Store(Mutex<(Checkpoint, usize)>);

impl Store {
    /// The checkpoint of a worker that has read everything until now.
    fn new(model: &Model) -> Self {
        let stream = &model.streams()[0].label;
        let is_open = |shard: &&Shard| {
            shard.opened <= model.now() && shard.closed.is_none_or(|closed| closed > model.now())
        };
        // Nothing was written since they were opened, and their ancestors are finished by definition.
        let open = model.shards().iter().filter(is_open);
        let id = |shard: &Shard| ShardId::new(&StreamLabel::new(stream), &*shard.id);
        let now = Timestamp::from_millisecond(model.now() as i64).expect("a time");
        let start = StartPoint {
            stream: model.stream_arn(stream),
            kind: StartKind::TrimHorizon,
            at: Timestamp::UNIX_EPOCH,
        };
        let shards = open.map(|shard| (id(shard), Position::Start)).collect();
        let checkpoint =
            Checkpoint { holder: "another".to_owned(), epoch: 1, start, read_at: now, shards };
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
            state.0 = Checkpoint::from_data(data).expect("it can be read");
            state.1 = state.1.max(size);
            Ok(ResourceVersion("any".to_owned()))
        })
    }
}

/// The memory that this process holds, in bytes.
fn memory() -> Result<usize> {
    let pages = fs::read_to_string("/proc/self/statm")?;
    let resident = pages.split(' ').nth(1).context("resident pages")?;
    Ok(resident.parse::<usize>()? * 4096)
}

/// A worker on all this.
struct Day {
    service: Arc<Service>,
    done: Arc<Done>,
    store: Arc<Store>,
    pictures: watch::Receiver<HealthSnapshot>,
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
        let done = Arc::new(Done::default());
        let connections = FakeConnections::new(1_000);
        for n in 0..CONNECTIONS {
            connections.put_new(&format!("hoge{n}"), &format!("hoge{n}"));
        }
        let backends = Backends {
            streams: Arc::new(Client {
                streams: DynamoDbStreams::new(&aws, "eu-west-1", &table),
                service: service.clone(),
                done: done.clone(),
                under_way: Mutex::default(),
            }),
            connections: Arc::new(connections),
            gateway: done.clone(),
            checkpoints: store.clone(),
            dead_letters: None,
        };
        let (mut job, pictures) = job("day", InitialPosition::TrimHorizon, &Metrics::default());
        (job.consumer.source, job.consumer.table) = (StreamSource::Stream(label), table);
        job.consumer.poll_interval = POLL;
        let stop = CancellationToken::new();
        let told = stop.clone();
        let worker = tokio::spawn(async move { run_worker(&backends, &job, &told).await });
        Ok(Self { service, done, store, pictures, stop, worker })
    }

    async fn until(&self, what: &str, condition: impl Fn() -> bool) -> Result<()> {
        let begun = Instant::now();
        while !condition() {
            let wrong = self.done.wrong.lock().unwrap().clone();
            ensure!(wrong.is_empty(), "{wrong:#?}");
            let (so_far, picture) = (self.done.so_far(), self.pictures.borrow());
            ensure!(begun.elapsed() < LIMIT, "{what}: not in {LIMIT:?}, {so_far:?}, {picture:?}");
            drop(picture);
            sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    }
    /// Waits until nothing is described any more: a call that waits for its turn while the clock is
    /// set ahead would no longer wait.
    async fn rest(&self) {
        let described = || self.service.now().counts()["DescribeStream"];
        let mut before = 0;
        while before < described() {
            before = described();
            sleep(Duration::from_secs(10)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_shards_are_read_to_their_ends_in_order() -> Result<()> {
    let day = Day::start().await?;
    day.until("it reads", || day.pictures.borrow().phase == Phase::Reading).await?;
    let mut sizes = vec![];
    for round in (STEP..=ROUNDS as usize).step_by(STEP) {
        // Between the round's last roll and the next one's first record.
        let end = begin(ROUNDS + round as u64) + ROUND / 4 * 3;
        advance(Duration::from_millis(end - day.service.clock.now())).await;
        let all = all_so_far(&day.service.now());
        day.until(&format!("all of {all:?} is read"), || day.done.so_far() == all).await?;
        day.rest().await;
        sizes.push(memory()?);
    }
    day.stop.cancel();
    day.worker.await?;

    let [begun, ended, messages] = day.done.so_far();
    assert!(begun >= 10_000 && ended >= 10_000, "{begun} shards begun, {ended} ended");
    assert_eq!(messages, ITEMS / 2 * ROUNDS as usize);
    let wrong = day.done.wrong.lock().unwrap();
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(day.pictures.borrow().gap, None);
    let counts = day.service.now().counts().clone();
    assert_eq!(counts.get("DescribeStream throttled"), None, "{counts:#?}");
    let largest = day.store.0.lock().unwrap().1;
    assert!(largest < CHECKPOINT, "a checkpoint had {largest} bytes");
    // By the end of the first half everything has been in use; each shard of the day replaces one of
    // the day before.
    let (half, end) = (sizes[sizes.len() / 2 - 1], sizes[sizes.len() - 1]);
    assert!(end < half + GROWTH, "the memory grew: {sizes:?}");
    println!(
        "{begun} shards, {messages} messages, memory {sizes:?}, checkpoint {largest}, {counts:#?}"
    );
    Ok(())
}
