//! A stream whose shards and records a test writes down.

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

/// The service's clock; it stands still, so that a record can be older or newer as a test wants.
pub const NOW: UnixSeconds = UnixSeconds(1_790_000_000);

/// The stream's label.
const LABEL: &str = "2024-12-03T08:06:15.779";

/// Shards on a page of DescribeStream, as AWS has it.
const SHARDS_ON_A_PAGE: usize = 100;

/// A stream.
#[derive(Debug)]
pub struct FakeStreams(Mutex<State>);

#[derive(Debug)]
struct State {
    shards: Vec<ScriptedShard>,
    records_on_a_page: usize,
    calls: Vec<Call>,
    faults: VecDeque<(&'static str, StreamErrorKind)>,
    generation: u64,
    read_at: Option<Instant>,
    panics: bool,
    rolls: bool,
}

#[derive(Debug)]
struct ScriptedShard {
    id: ShardId,
    parent: Option<ShardId>,
    changes: Vec<Record>,
    closed: bool,
    hidden: bool,
    not_found: bool,
}

impl ScriptedShard {
    fn open(id: ShardId, parent: Option<ShardId>) -> Self {
        Self { id, parent, changes: vec![], closed: false, hidden: false, not_found: false }
    }
}

/// What the worker asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A page of the description, after this shard.
    Describe(Option<ShardId>),
    /// The children of a shard.
    Children(ShardId),
    /// An iterator.
    Iterator(ShardId, IteratorStart),
    /// Records of a shard.
    Records(ShardId),
}

impl FakeStreams {
    /// A stream without shards, whose pages hold this many records.
    pub fn new(records_on_a_page: usize) -> Self {
        Self(Mutex::new(State {
            shards: vec![],
            records_on_a_page,
            calls: vec![],
            faults: VecDeque::new(),
            generation: 0,
            read_at: None,
            panics: false,
            rolls: false,
        }))
    }

    /// Adds an open shard.
    pub fn open(&self, id: &str, parent: Option<&str>) {
        let id = shard_id(id);
        let parent = parent.map(shard_id);
        self.0.lock().unwrap().shards.push(ScriptedShard::open(id, parent));
    }

    /// Appends a record to a shard.
    pub fn append(&self, id: &str, change: Record) {
        let mut state = self.0.lock().unwrap();
        state.shard(&shard_id(id)).unwrap().changes.push(change);
    }

    /// Closes a shard: its last page has no next iterator.
    pub fn close(&self, id: &str) {
        let mut state = self.0.lock().unwrap();
        state.shard(&shard_id(id)).unwrap().closed = true;
    }

    /// Takes a shard out of the listing and its records away, as the retention does.
    pub fn trim(&self, id: &str) {
        self.0.lock().unwrap().shards.retain(|shard| shard.id.name != id);
    }

    /// Leaves a shard out of the listing, as one that is behind does, or lists it again.
    pub fn hide(&self, id: &str, hidden: bool) {
        self.0.lock().unwrap().shard(&shard_id(id)).unwrap().hidden = hidden;
    }

    /// From now on a shard is listed and yet not found.
    pub fn never_find(&self, id: &str) {
        self.0.lock().unwrap().shard(&shard_id(id)).unwrap().not_found = true;
    }

    /// Between the first and the second page of the next listing, the first shard gets a record and
    /// rolls: its child is on the last page.
    pub fn roll_between_pages(&self) {
        self.0.lock().unwrap().rolls = true;
    }

    /// From now on reading records panics, or not.
    pub fn panic_on_records(&self, panics: bool) {
        self.0.lock().unwrap().panics = panics;
    }

    /// All iterators given until now have expired.
    pub fn expire_iterators(&self) {
        self.0.lock().unwrap().generation += 1;
    }

    /// The next call of this kind (`Describe`, `Children`, `Iterator`, `Records`) fails.
    pub fn fail_next(&self, call: &'static str, kind: StreamErrorKind) {
        self.0.lock().unwrap().faults.push_back((call, kind));
    }

    /// What was asked until now.
    pub fn calls(&self) -> Vec<Call> {
        self.0.lock().unwrap().calls.clone()
    }

    /// When records were handed out last.
    pub fn read_at(&self) -> Option<Instant> {
        self.0.lock().unwrap().read_at
    }

    /// The iterators asked for a shard.
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
        self.fault("Children")?;
        let is_child = |shard: &&ScriptedShard| shard.parent.as_ref() == Some(parent);
        Ok(description(self.shards.iter().filter(is_child).filter(|shard| !shard.hidden), None))
    }

    fn shard(&mut self, id: &ShardId) -> Option<&mut ScriptedShard> {
        self.shards.iter_mut().find(|shard| shard.id == *id)
    }

    fn found(&mut self, id: &ShardId) -> Result<&mut ScriptedShard, StreamError> {
        let shard = self.shard(id).filter(|shard| !shard.not_found);
        shard.ok_or_else(|| failed(StreamErrorKind::NotFound))
    }

    fn fault(&mut self, call: &'static str) -> Result<(), StreamError> {
        match self.faults.front() {
            Some((kind, error)) if *kind == call => {
                let error = *error;
                self.faults.pop_front();
                Err(failed(error))
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
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            assert_eq!(stream.as_str(), LABEL);
            if let ShardFilter::ChildrenOf(parent) = listed {
                return self.0.lock().unwrap().children(parent);
            }
            let mut state = self.0.lock().unwrap();
            state.calls.push(Call::Describe(after.cloned()));
            state.fault("Describe")?;
            if after.is_some() && std::mem::take(&mut state.rolls) {
                let parent = &mut state.shards[0];
                parent.changes.push(change(1, "fuga", "hoge"));
                parent.closed = true;
                let child = ScriptedShard::open(shard_id("zz-child"), Some(parent.id.clone()));
                state.shards.push(child);
            }
            let begin = after.map_or(0, |after| {
                state.shards.iter().position(|shard| shard.id == *after).unwrap() + 1
            });
            let page: Vec<_> = state.shards[begin..].iter().take(SHARDS_ON_A_PAGE).collect();
            let more = begin + page.len() < state.shards.len();
            let next = page.last().filter(|_| more).map(|shard| shard.id.clone());
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
            state.fault("Iterator")?;
            let generation = state.generation;
            let shard = state.found(id)?;
            let begin = match from {
                IteratorStart::Start => 0,
                IteratorStart::At(at) => {
                    shard.changes.partition_point(|change| change.approximate_creation_time < *at)
                }
                IteratorStart::After(last) => {
                    shard.changes.partition_point(|change| change.sequence_number <= *last)
                }
            };
            Ok(ShardIterator(format!("{generation} {begin} {id}")))
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let mut parts = iterator.0.splitn(3, ' ');
            let generation: u64 = parts.next().unwrap().parse().unwrap();
            let begin: usize = parts.next().unwrap().parse().unwrap();
            let id = shard_id(parts.next().unwrap());
            let mut state = self.0.lock().unwrap();
            state.calls.push(Call::Records(id.clone()));
            state.fault("Records")?;
            if state.panics {
                drop(state);
                panic!("a fault, as the test wants it");
            }
            if generation < state.generation {
                return Err(failed(StreamErrorKind::ExpiredIterator));
            }
            let most = state.records_on_a_page;
            let shard = state.found(&id)?;
            let changes: Vec<_> = shard.changes[begin..].iter().take(most).cloned().collect();
            let end = begin + changes.len();
            let more = !shard.closed || end < shard.changes.len();
            let next = more.then(|| ShardIterator(format!("{generation} {end} {id}")));
            if !changes.is_empty() {
                state.read_at = Some(Instant::now());
            }
            Ok(RecordPage {
                records: changes,
                malformed: 0,
                next_iterator: next,
                service_time: Some(NOW),
            })
        })
    }
}

fn description<'a>(
    shards: impl Iterator<Item = &'a ScriptedShard>,
    next: Option<ShardId>,
) -> StreamPage {
    let shard =
        |shard: &ScriptedShard| Shard { id: shard.id.clone(), parent: shard.parent.clone() };
    StreamPage {
        status: StreamStatus::Enabled,
        view_type: ViewType::NewAndOldImages,
        keys: KeySchema { partition: "PK".to_owned(), sort: Some("SK".to_owned()) },
        shards: shards.map(shard).collect(),
        next_page: next,
        service_time: NOW,
    }
}

/// The shard of this name in the scripted stream.
pub fn shard_id(name: &str) -> ShardId {
    ShardId::new(&StreamLabel::new(LABEL), name)
}

fn failed(kind: StreamErrorKind) -> StreamError {
    StreamError { action: "dynamodb:Scripted", kind, service_time: Some(NOW), source: None }
}

/// A sequence number as AWS writes them: 21 digits.
pub fn number(n: u32) -> SequenceNumber {
    SequenceNumber::parse(&format!("1{n:020}")).unwrap()
}

/// A change of `target_pk#<item>`, `target_sk#<sk>`, to the value `n`, made now.
pub fn change(n: u32, item: &str, sk: &str) -> Record {
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
        sequence_number: number(n),
        approximate_creation_time: NOW,
        user_identity: None,
    }
}
