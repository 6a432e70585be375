//! Implements the trait `Streams` on the model, on tokio's clock, which a test pauses. Latencies
//! follow from a seed, and faults from the test.

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

use super::{IteratorPosition, Model, ServiceError, Status, StreamViewType};

/// The time for which the AWS client waits for a response.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);

/// Tokio's clock as a time of day. Clones show the same time.
#[derive(Clone, Debug)]
pub struct Clock {
    origin: Instant,
    start: u64,
    slept: Arc<AtomicU64>,
}

impl Clock {
    /// Starts a clock at this time, in milliseconds since 1970.
    pub fn starting_at(start: u64) -> Self {
        Self { origin: Instant::now(), start, slept: Arc::default() }
    }

    /// Simulates that the machine sleeps. Tokio's clock stops meanwhile, as on Linux.
    pub fn sleep(&self, lasts: Duration) {
        self.slept.fetch_add(lasts.as_millis() as u64, Ordering::Relaxed);
    }

    /// The time in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        let awake = self.origin.elapsed().as_millis() as u64;
        self.start + awake + self.slept.load(Ordering::Relaxed)
    }
}

/// Client of the modelled table. Clients can share one model, but each has its own latency and
/// faults.
pub struct ModelStreams {
    model: Arc<Mutex<Model>>,
    clock: Clock,
    network: Mutex<Network>,
}

struct Network {
    latency: Range<Duration>,
    rng: Rng,
    faults: FaultFn,
}

/// Decides whether a request fails.
type FaultFn = Box<dyn FnMut(Request, FaultTiming) -> Option<Fault> + Send>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Request {
    /// ListStreams.
    Streams,
    /// DescribeStream.
    Describe,
    /// GetShardIterator.
    Iterator,
    /// GetRecords.
    Records,
}

/// When a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FaultTiming {
    /// The service does not receive the request.
    Before,
    /// The service has handled the request, but the response is lost.
    After,
}

/// How a request fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// At once.
    Fails(StreamErrorKind),
    /// After the timeout of the client.
    TimesOut,
}

impl ModelStreams {
    /// Creates a client without latency and faults.
    pub fn new(model: Arc<Mutex<Model>>, clock: Clock) -> Self {
        let network = Network {
            latency: Duration::ZERO..Duration::ZERO,
            rng: Rng::with_seed(0),
            faults: Box::new(|_, _| None),
        };
        Self { model, clock, network: Mutex::new(network) }
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Sets the range of latencies.
    pub fn set_latency(&self, latency: Range<Duration>, seed: u64) {
        let mut network = self.network.lock().unwrap();
        network.latency = latency;
        network.rng = Rng::with_seed(seed);
    }

    /// Sets the function that decides which requests fail.
    pub fn set_faults(
        &self,
        faults: impl FnMut(Request, FaultTiming) -> Option<Fault> + Send + 'static,
    ) {
        self.network.lock().unwrap().faults = Box::new(faults);
    }

    /// Advances the model to the current time and locks it.
    pub fn with<T>(&self, act: impl FnOnce(&mut Model) -> T) -> T {
        let mut model = self.model.lock().unwrap();
        model.advance_to(self.clock.now());
        act(&mut model)
    }

    async fn request<T>(
        &self,
        request: Request,
        handle: impl FnOnce(&mut Model) -> Result<T, ServiceError>,
    ) -> Result<T, StreamError> {
        let half = self.network.lock().unwrap().draw_latency() / 2;
        self.apply_fault(request, FaultTiming::Before).await?;
        sleep(half).await;
        let (response, now) = self.with(|model| (handle(model), model.now()));
        sleep(half).await;
        self.apply_fault(request, FaultTiming::After).await?;
        response.map_err(|service_error| failed(request, kind(service_error), Some(now)))
    }

    async fn apply_fault(&self, request: Request, timing: FaultTiming) -> Result<(), StreamError> {
        let fault = (self.network.lock().unwrap().faults)(request, timing);
        match fault {
            None => Ok(()),
            Some(Fault::Fails(kind)) => {
                let now = self.with(|model| model.now());
                Err(failed(request, kind, Some(now)))
            }
            Some(Fault::TimesOut) => {
                sleep(REQUEST_TIMEOUT).await;
                Err(failed(request, StreamErrorKind::Unavailable, None))
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
    fn draw_latency(&mut self) -> Duration {
        let Range { start, end } = self.latency;
        start + end.saturating_sub(start).mul_f64(self.rng.f64())
    }
}

impl Streams for ModelStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move {
            let labels = self.request(Request::Streams, Model::list_streams).await?;
            Ok(labels.iter().map(|label| StreamLabel::new(label)).collect())
        })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        filter: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            let children_of = match filter {
                ShardFilter::All => None,
                ShardFilter::ChildrenOf(parent) => Some(parent.name.as_str()),
            };
            let after = after.map(|shard| shard.name.as_str());
            let id = |name: String| ShardId::new(stream, name);
            let handle = |model: &mut Model| {
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
            self.request(Request::Describe, handle).await
        })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            let from = match from {
                // The trait requires this of a client whose service does not support timestamps.
                IteratorStart::At(_) if !self.with(|model| model.settings.supports_timestamps) => {
                    IteratorPosition::TrimHorizon
                }
                IteratorStart::TrimHorizon => IteratorPosition::TrimHorizon,
                IteratorStart::At(at) => {
                    IteratorPosition::Timestamp(at.0.try_into().expect("the time is after 1970"))
                }
                IteratorStart::After(number) => {
                    IteratorPosition::After(number.as_str().parse().expect("a sequence number"))
                }
            };
            let handle =
                |model: &mut Model| model.shard_iterator(shard.stream.as_str(), &shard.name, from);
            self.request(Request::Iterator, handle).await.map(ShardIterator)
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let handle = |model: &mut Model| {
                let page = model.get_records(&iterator.0, None)?;
                Ok(RecordPage {
                    records: page.records.iter().map(|record| to_record(model, *record)).collect(),
                    malformed: 0,
                    next_iterator: page.next.map(ShardIterator),
                    service_time: Some(seconds(model.now())),
                })
            };
            self.request(Request::Records, handle).await
        })
    }
}

/// The record as a client returns it.
pub fn to_record(model: &Model, index: usize) -> Record {
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

fn view(view: StreamViewType) -> ViewType {
    match view {
        StreamViewType::KeysOnly => ViewType::KeysOnly,
        StreamViewType::NewImage => ViewType::NewImage,
        StreamViewType::OldImage => ViewType::OldImage,
        StreamViewType::NewAndOldImages => ViewType::NewAndOldImages,
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

fn kind(service_error: ServiceError) -> StreamErrorKind {
    match service_error {
        ServiceError::ExpiredIterator => StreamErrorKind::ExpiredIterator,
        ServiceError::TrimmedDataAccess => StreamErrorKind::Trimmed,
        ServiceError::ResourceNotFound => StreamErrorKind::NotFound,
        ServiceError::LimitExceeded => StreamErrorKind::Throttled,
        ServiceError::Validation => StreamErrorKind::Invalid,
        ServiceError::InternalServerError => StreamErrorKind::Unavailable,
    }
}

fn failed(request: Request, kind: StreamErrorKind, service_time_ms: Option<u64>) -> StreamError {
    let action = match request {
        Request::Streams => "dynamodb:ListStreams",
        Request::Describe => "dynamodb:DescribeStream",
        Request::Iterator => "dynamodb:GetShardIterator",
        Request::Records => "dynamodb:GetRecords",
    };
    StreamError { action, kind, service_time: service_time_ms.map(seconds), source: None }
}
