//! Fake stream with scripted shards, records and errors.

use std::collections::VecDeque;
use std::sync::Mutex;

use futures::future::BoxFuture;
use stream_notifier::model::{
    AttributeValue, EventName, Item, KeySchema, Record, SequenceNumber, ShardId, StreamLabel,
    UnixSeconds, ViewType,
};
use stream_notifier::streams::{
    IteratorStart, RecordPage, Shard, ShardFilter, ShardIterator, StreamError, StreamErrorKind,
    StreamPage, StreamStatus, Streams,
};
use tokio::time::Instant;

/// The service's clock. It stands still, so that a test can choose the age of a record.
pub const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

const LABEL: &str = "2024-12-03T08:06:15.779";

/// Shards per page of DescribeStream, as in AWS.
const SHARDS_PER_PAGE: usize = 100;

#[derive(Debug)]
pub struct FakeStreams(Mutex<State>);

#[derive(Debug)]
struct State {
    shards: Vec<FakeShard>,
    records_per_page: usize,
    calls: Vec<Call>,
    errors: VecDeque<(&'static str, StreamErrorKind)>,
    generation: u64,
    read_at: Option<Instant>,
    panics: bool,
    rolls: bool,
}

#[derive(Debug)]
struct FakeShard {
    id: ShardId,
    parent: Option<ShardId>,
    records: Vec<Record>,
    closed: bool,
    hidden: bool,
    not_found: bool,
}

impl FakeShard {
    fn open(id: ShardId, parent: Option<ShardId>) -> Self {
        Self { id, parent, records: vec![], closed: false, hidden: false, not_found: false }
    }
}

/// A request of the worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// DescribeStream after this shard.
    Describe(Option<ShardId>),
    /// DescribeStream for the children of a shard.
    Children(ShardId),
    /// GetShardIterator.
    Iterator(ShardId, IteratorStart),
    /// GetRecords.
    Records(ShardId),
}

impl FakeStreams {
    /// Creates a stream without shards, with this number of records per page.
    pub fn new(records_per_page: usize) -> Self {
        Self(Mutex::new(State {
            shards: vec![],
            records_per_page,
            calls: vec![],
            errors: VecDeque::new(),
            generation: 0,
            read_at: None,
            panics: false,
            rolls: false,
        }))
    }

    pub fn open(&self, id: &str, parent: Option<&str>) {
        let id = shard_id(id);
        let parent = parent.map(shard_id);
        self.0.lock().unwrap().shards.push(FakeShard::open(id, parent));
    }

    pub fn append(&self, id: &str, record: Record) {
        let mut state = self.0.lock().unwrap();
        state.shard(&shard_id(id)).unwrap().records.push(record);
    }

    /// Closes a shard, so that its last page has no next iterator.
    pub fn close(&self, id: &str) {
        let mut state = self.0.lock().unwrap();
        state.shard(&shard_id(id)).unwrap().closed = true;
    }

    /// Removes a shard and its records, as the retention does.
    pub fn trim(&self, id: &str) {
        self.0.lock().unwrap().shards.retain(|shard| shard.id.name != id);
    }

    /// Hides a shard from listings, as a stale listing does, or shows it again.
    pub fn hide(&self, id: &str, hidden: bool) {
        self.0.lock().unwrap().shard(&shard_id(id)).unwrap().hidden = hidden;
    }

    /// Makes a shard listed but not found.
    pub fn set_not_found(&self, id: &str) {
        self.0.lock().unwrap().shard(&shard_id(id)).unwrap().not_found = true;
    }

    /// Rolls the first shard between the first two pages of the next listing, after one has_more
    /// record. Its child is on the last page.
    pub fn roll_between_pages(&self) {
        self.0.lock().unwrap().rolls = true;
    }

    /// Makes GetRecords panic, or not.
    pub fn panic_on_records(&self, panics: bool) {
        self.0.lock().unwrap().panics = panics;
    }

    /// Expires all iterators that were issued so far.
    pub fn expire_iterators(&self) {
        self.0.lock().unwrap().generation += 1;
    }

    /// Fails the next request of this kind: `Describe`, `Children`, `Iterator` or `Records`.
    pub fn fail_next(&self, call: &'static str, kind: StreamErrorKind) {
        self.0.lock().unwrap().errors.push_back((call, kind));
    }

    /// All requests so far.
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    /// The last time at which records were returned.
    pub fn read_at(&self) -> Option<Instant> {
        self.0.lock().unwrap().read_at
    }

    /// The iterator requests for a shard.
    pub fn iterators(&self, id: &str) -> Vec<IteratorStart> {
        let of_shard = |call| match call {
            Call::Iterator(shard, from) if shard.name == id => Some(from),
            _ => None,
        };
        self.calls().into_iter().filter_map(of_shard).collect()
    }
}

impl State {
    fn children(&mut self, parent: &ShardId) -> Result<StreamPage, StreamError> {
        self.calls.push(Call::Children(parent.clone()));
        self.take_error("Children")?;
        let is_child = |shard: &&FakeShard| shard.parent.as_ref() == Some(parent);
        Ok(description(self.shards.iter().filter(is_child).filter(|shard| !shard.hidden), None))
    }

    fn shard(&mut self, id: &ShardId) -> Option<&mut FakeShard> {
        self.shards.iter_mut().find(|shard| shard.id == *id)
    }

    fn find_shard(&mut self, id: &ShardId) -> Result<&mut FakeShard, StreamError> {
        let shard = self.shard(id).filter(|shard| !shard.not_found);
        shard.ok_or_else(|| stream_error(StreamErrorKind::NotFound))
    }

    fn take_error(&mut self, call: &'static str) -> Result<(), StreamError> {
        match self.errors.front() {
            Some((kind, error)) if *kind == call => {
                let error = *error;
                self.errors.pop_front();
                Err(stream_error(error))
            }
            _ => Ok(()),
        }
    }
}

impl Streams for FakeStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move { Ok(vec![StreamLabel::new(LABEL)]) })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        filter: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            assert_eq!(stream.as_str(), LABEL);
            if let ShardFilter::ChildrenOf(parent) = filter {
                return self.0.lock().unwrap().children(parent);
            }
            let mut state = self.0.lock().unwrap();
            state.calls.push(Call::Describe(after.cloned()));
            state.take_error("Describe")?;
            if after.is_some() && std::mem::take(&mut state.rolls) {
                let parent = &mut state.shards[0];
                parent.records.push(new_record(1, "fuga", "hoge"));
                parent.closed = true;
                let child = FakeShard::open(shard_id("zz-child"), Some(parent.id.clone()));
                state.shards.push(child);
            }
            let start = after.map_or(0, |after| {
                state.shards.iter().position(|shard| shard.id == *after).unwrap() + 1
            });
            let page: Vec<_> = state.shards[start..].iter().take(SHARDS_PER_PAGE).collect();
            let has_more = start + page.len() < state.shards.len();
            let next = page.last().filter(|_| has_more).map(|shard| shard.id.clone());
            let shown = page.into_iter().filter(|shard| !shard.hidden);
            Ok(description(shown, next))
        })
    }

    fn get_iterator<'a>(
        &'a self,
        id: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            let mut state = self.0.lock().unwrap();
            state.calls.push(Call::Iterator(id.clone(), from.clone()));
            state.take_error("Iterator")?;
            let generation = state.generation;
            let shard = state.find_shard(id)?;
            let start = match from {
                IteratorStart::TrimHorizon => 0,
                IteratorStart::At(at) => {
                    shard.records.partition_point(|record| record.approximate_creation_time < *at)
                }
                IteratorStart::After(last) => {
                    shard.records.partition_point(|record| record.sequence_number <= *last)
                }
            };
            Ok(ShardIterator(format!("{generation} {start} {id}")))
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let mut parts = iterator.0.splitn(3, ' ');
            let generation: u64 = parts.next().unwrap().parse().unwrap();
            let start: usize = parts.next().unwrap().parse().unwrap();
            let id = shard_id(parts.next().unwrap());
            let mut state = self.0.lock().unwrap();
            state.calls.push(Call::Records(id.clone()));
            state.take_error("Records")?;
            if state.panics {
                drop(state);
                panic!("panic requested by the test");
            }
            if generation < state.generation {
                return Err(stream_error(StreamErrorKind::ExpiredIterator));
            }
            let max = state.records_per_page;
            let shard = state.find_shard(&id)?;
            let records: Vec<_> = shard.records[start..].iter().take(max).cloned().collect();
            let end = start + records.len();
            let has_more = !shard.closed || end < shard.records.len();
            let next = has_more.then(|| ShardIterator(format!("{generation} {end} {id}")));
            if !records.is_empty() {
                state.read_at = Some(Instant::now());
            }
            Ok(RecordPage { records, malformed: 0, next_iterator: next, service_time: Some(NOW) })
        })
    }
}

fn description<'a>(
    shards: impl Iterator<Item = &'a FakeShard>,
    next: Option<ShardId>,
) -> StreamPage {
    let shard = |shard: &FakeShard| Shard { id: shard.id.clone(), parent: shard.parent.clone() };
    StreamPage {
        status: StreamStatus::Enabled,
        view_type: ViewType::NewAndOldImages,
        keys: KeySchema { partition: "PK".to_owned(), sort: Some("SK".to_owned()) },
        shards: shards.map(shard).collect(),
        next_page: next,
        service_time: NOW,
    }
}

/// The id of the shard with this name.
pub fn shard_id(name: &str) -> ShardId {
    ShardId::new(&StreamLabel::new(LABEL), name)
}

fn stream_error(kind: StreamErrorKind) -> StreamError {
    StreamError { action: "dynamodb:Fake", kind, service_time: Some(NOW), source: None }
}

/// A sequence number with 21 digits, as in AWS.
pub fn sequence_number(n: u32) -> SequenceNumber {
    SequenceNumber::parse(&format!("1{n:020}")).unwrap()
}

/// A record of `target_pk#<item>`, `target_sk#<sk>` that sets the value to `n` at [`NOW`].
pub fn new_record(n: u32, item: &str, sk: &str) -> Record {
    let text = |text: String| AttributeValue::S(text);
    let keys = Item::from([
        ("PK".to_owned(), text(format!("target_pk#{item}"))),
        ("SK".to_owned(), text(format!("target_sk#{sk}"))),
    ]);
    let image = |value: u32| {
        let mut image = keys.clone();
        image.insert("TargetAttribute".to_owned(), AttributeValue::N(value.to_string()));
        image
    };
    Record {
        event_id: format!("event-{n}"),
        event: EventName::Modify,
        old: image(n.wrapping_sub(1)),
        new: image(n),
        keys,
        sequence_number: sequence_number(n),
        approximate_creation_time: NOW,
        user_identity: None,
    }
}
