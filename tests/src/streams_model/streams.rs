//! The simulated table behind the trait `Streams`, on tokio's clock, which a test pauses. Nothing
//! here is left to chance: latencies come from a seed, faults from whoever set them.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fastrand::Rng;
use futures::future::BoxFuture;
use stream_notifier::model::{
    AttributeValue, EventName, Item, KeySchema, Record, SequenceNumber, ShardId, StreamLabel,
    UnixSeconds, ViewType,
};
use stream_notifier::streams::{
    IteratorStart, RecordPage, Shard, ShardFilter, ShardIterator, StreamError, StreamErrorKind,
    StreamPage, StreamStatus, Streams,
};
use tokio::time::{Instant, sleep};

use super::{From, Model, Refusal, Status, View};

/// How long the SDK's client waits for an answer.
const CALL_LIMIT: Duration = Duration::from_secs(15);

/// Tokio's clock as a time of day. Copies agree.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Instant,
    begin: u64,
    slept: Arc<AtomicU64>,
}

impl Clock {
    /// A clock that shows this now, in milliseconds since 1970.
    pub fn starting_at(begin: u64) -> Self {
        Self { origin: Instant::now(), begin, slept: Arc::default() }
    }

    /// The machine sleeps for so long: tokio's clock stands still meanwhile, as Linux's does.
    pub fn sleep(&self, lasts: Duration) {
        self.slept.fetch_add(lasts.as_millis() as u64, Ordering::Relaxed);
    }

    /// What it shows.
    pub fn now(&self) -> u64 {
        let awake = self.origin.elapsed().as_millis() as u64;
        self.begin + awake + self.slept.load(Ordering::Relaxed)
    }
}

/// A client of the simulated table. Several may share one model: the latencies and faults are each
/// client's own.
pub struct ModelStreams {
    model: Arc<Mutex<Model>>,
    clock: Clock,
    network: Mutex<Network>,
}

struct Network {
    latency: Range<Duration>,
    rng: Rng,
    faults: Faults,
}

/// Whether a call goes wrong at this moment.
type Faults = Box<dyn FnMut(Call, Moment) -> Option<Fault> + Send>;

/// A call that a client makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Call {
    /// ListStreams.
    Streams,
    /// DescribeStream.
    Describe,
    /// GetShardIterator.
    Iterator,
    /// GetRecords.
    Records,
}

/// When a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The service was never asked.
    Before,
    /// The service has answered, and the answer is lost.
    After,
}

/// How a call goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails at once.
    Fails(StreamErrorKind),
    /// It is not answered: it fails when the client's patience ends.
    Hangs,
}

impl ModelStreams {
    /// A client whose calls take no time and never go wrong by themselves.
    pub fn new(model: Arc<Mutex<Model>>, clock: Clock) -> Self {
        let network = Network {
            latency: Duration::ZERO..Duration::ZERO,
            rng: Rng::with_seed(0),
            faults: Box::new(|_, _| None),
        };
        Self { model, clock, network: Mutex::new(network) }
    }

    /// The clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// How long a call takes, from now on.
    pub fn latency(&self, latency: Range<Duration>, seed: u64) {
        let mut network = self.network.lock().unwrap();
        network.latency = latency;
        network.rng = Rng::with_seed(seed);
    }

    /// Which calls go wrong, from now on.
    pub fn faults(&self, faults: impl FnMut(Call, Moment) -> Option<Fault> + Send + 'static) {
        self.network.lock().unwrap().faults = Box::new(faults);
    }

    /// The model, its clock set to now.
    pub fn with<T>(&self, act: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.model.lock().unwrap();
        model.advance_to(self.clock.now());
        act(&mut model)
    }

    async fn call<T>(
        &self,
        call: Call,
        ask: impl FnOnce(&mut Model) -> Result<T, Refusal>,
    ) -> Result<T, StreamError> {
        let half = self.network.lock().unwrap().draw() / 2;
        self.go_wrong(call, Moment::Before).await?;
        sleep(half).await;
        let (answer, now) = self.with(|model| (ask(model), model.now()));
        sleep(half).await;
        self.go_wrong(call, Moment::After).await?;
        answer.map_err(|refusal| failed(call, kind(refusal), Some(now)))
    }

    async fn go_wrong(&self, call: Call, moment: Moment) -> Result<(), StreamError> {
        let fault = (self.network.lock().unwrap().faults)(call, moment);
        match fault {
            None => Ok(()),
            Some(Fault::Fails(kind)) => {
                let now = self.with(|model| model.now());
                Err(failed(call, kind, Some(now)))
            }
            Some(Fault::Hangs) => {
                sleep(CALL_LIMIT).await;
                Err(failed(call, StreamErrorKind::Unavailable, None))
            }
        }
    }
}

impl fmt::Debug for ModelStreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModelStreams").field("clock", &self.clock).finish_non_exhaustive()
    }
}

impl Network {
    fn draw(&mut self) -> Duration {
        let Range { start, end } = self.latency;
        start + end.saturating_sub(start).mul_f64(self.rng.f64())
    }
}

impl Streams for ModelStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move {
            let labels = self.call(Call::Streams, Model::list_streams).await?;
            Ok(labels.iter().map(|label| StreamLabel::new(label)).collect())
        })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            let children_of = match listed {
                ShardFilter::All => None,
                ShardFilter::ChildrenOf(parent) => Some(parent.name.as_str()),
            };
            let after = after.map(|shard| shard.name.as_str());
            let id = |name: String| ShardId::new(stream, name);
            let ask = |model: &mut Model| {
                let described = model.describe(stream.as_str(), children_of, after, None)?;
                let shard = |shard: super::DescribedShard| Shard {
                    id: id(shard.id),
                    parent: shard.parent.map(id),
                };
                Ok(StreamPage {
                    status: status(described.status),
                    view_type: view(model.settings.view),
                    keys: KeySchema { partition: "PK".to_owned(), sort: Some("SK".to_owned()) },
                    shards: described.shards.into_iter().map(shard).collect(),
                    next_page: described.last.map(id),
                    service_time: seconds(model.now()),
                })
            };
            self.call(Call::Describe, ask).await
        })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            let from = match from {
                // What the trait asks of a client whose service does not know timestamps.
                IteratorStart::At(_) if !self.with(|model| model.settings.knows_timestamps) => {
                    From::TrimHorizon
                }
                IteratorStart::Start => From::TrimHorizon,
                IteratorStart::At(at) => {
                    From::Timestamp(at.0.try_into().expect("it is after 1970"))
                }
                IteratorStart::After(number) => {
                    From::After(number.as_str().parse().expect("a number"))
                }
            };
            let ask =
                |model: &mut Model| model.shard_iterator(shard.stream.as_str(), &shard.name, from);
            self.call(Call::Iterator, ask).await.map(ShardIterator)
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let ask = |model: &mut Model| {
                let page = model.get_records(&iterator.0, None)?;
                Ok(RecordPage {
                    records: page.records.iter().map(|record| change(model, *record)).collect(),
                    malformed: 0,
                    next_iterator: page.next.map(ShardIterator),
                    service_time: Some(seconds(model.now())),
                })
            };
            self.call(Call::Records, ask).await
        })
    }
}

/// A record as a client gives it.
pub fn change(model: &Model, index: usize) -> Record {
    let record = &model.records()[index];
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let keys = Item::from([
        ("PK".to_owned(), text(&record.key.pk)),
        ("SK".to_owned(), text(&record.key.sk)),
    ]);
    let image = |value: Option<u64>| {
        let Some(value) = value else { return Item::new() };
        let mut image = keys.clone();
        image.insert("TargetAttribute".to_owned(), AttributeValue::N(value.to_string()));
        if model.settings.filler_bytes > 0 {
            image.insert("Filler".to_owned(), text(&"x".repeat(model.settings.filler_bytes)));
        }
        image
    };
    let [old, new] = model.images(index).map(image);
    Record {
        event_id: model.event_id(index),
        event: match record.event() {
            "INSERT" => EventName::Insert,
            "MODIFY" => EventName::Modify,
            _ => EventName::Remove,
        },
        keys,
        old,
        new,
        sequence_number: SequenceNumber::parse(&record.number.to_string()).expect("a number"),
        approximate_creation_time: seconds(record.created),
        user_identity: None,
    }
}

fn seconds(milliseconds: u64) -> UnixSeconds {
    UnixSeconds((milliseconds / 1_000) as i64)
}

fn view(view: View) -> ViewType {
    match view {
        View::KeysOnly => ViewType::KeysOnly,
        View::NewImage => ViewType::NewImage,
        View::OldImage => ViewType::OldImage,
        View::NewAndOldImages => ViewType::NewAndOldImages,
    }
}

fn status(status: Status) -> StreamStatus {
    match status {
        Status::Enabling => StreamStatus::Enabling,
        Status::Enabled => StreamStatus::Enabled,
        Status::Disabling => StreamStatus::Disabling,
        Status::Disabled => StreamStatus::Disabled,
    }
}

fn kind(refusal: Refusal) -> StreamErrorKind {
    match refusal {
        Refusal::ExpiredIterator => StreamErrorKind::ExpiredIterator,
        Refusal::TrimmedDataAccess => StreamErrorKind::Trimmed,
        Refusal::ResourceNotFound => StreamErrorKind::NotFound,
        Refusal::LimitExceeded => StreamErrorKind::Throttled,
        Refusal::Validation => StreamErrorKind::Invalid,
        Refusal::InternalServerError => StreamErrorKind::Unavailable,
    }
}

fn failed(call: Call, kind: StreamErrorKind, answered: Option<u64>) -> StreamError {
    let action = match call {
        Call::Streams => "dynamodb:ListStreams",
        Call::Describe => "dynamodb:DescribeStream",
        Call::Iterator => "dynamodb:GetShardIterator",
        Call::Records => "dynamodb:GetRecords",
    };
    StreamError { action, kind, service_time: answered.map(seconds), source: None }
}
