//! The table: its items, clock, streams, shards and records. Writes and reads draw from separate
//! random generators, so that reads cannot change what is written.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::shard::{self, Shard};
use super::stream::{Status, Stream};
use super::throttle::RequestLog;
use super::{ServiceError, Settings};

#[derive(Debug)]
pub struct Model {
    /// May change at any time.
    pub settings: Settings,
    pub(super) now: u64,
    pub(super) streams: Vec<Stream>,
    pub(super) shards: Vec<Shard>,
    pub(super) records: Vec<ModelRecord>,
    pub(super) read_rng: Rng,
    pub(super) requests: RequestLog,
    counts: BTreeMap<&'static str, u64>,
    write_rng: Rng,
    items: BTreeMap<Key, u64>,
    /// Sequence numbers of all records.
    numbers: BTreeSet<u128>,
    /// Open shards, by the first hash that they own.
    open: BTreeMap<u64, usize>,
    /// Scheduled events, by their time.
    scheduled: BTreeSet<(u64, ScheduledEvent)>,
}

/// The key attributes `PK` and `SK` of an item.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub pk: String,
    pub sk: String,
}

impl Key {
    /// The key `target_pk#<item>`, `target_sk#<sk>`, which the example's filters match.
    pub fn target(item: &str, sk: &str) -> Self {
        Self { pk: format!("target_pk#{item}"), sk: format!("target_sk#{sk}") }
    }
}

/// A record of one change of an item. Its index in [`Model::records`] is its place in the order of
/// writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRecord {
    pub shard: usize,
    pub key: Key,
    /// `TargetAttribute` before the change; `None` without an item.
    pub old: Option<u64>,
    /// `TargetAttribute` after the change; `None` without an item.
    pub new: Option<u64>,
    /// Sequence number.
    pub number: u128,
    /// Time of the write, in milliseconds since 1970. Readers see seconds.
    pub created: u64,
    /// The earliest time at which it can be read.
    pub readable: u64,
}

impl ModelRecord {
    /// The `eventName`.
    pub fn event(&self) -> &'static str {
        match (self.old, self.new) {
            (None, _) => "INSERT",
            (_, Some(_)) => "MODIFY",
            (_, None) => "REMOVE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ScheduledEvent {
    Enable(usize),
    Roll(usize),
}

impl Model {
    /// Creates a table without items, whose stream is enabled now.
    pub fn new(settings: Settings, mut rng: Rng, now: u64) -> Self {
        let mut model = Self {
            settings,
            now,
            streams: vec![],
            shards: vec![],
            records: vec![],
            read_rng: rng.fork(),
            requests: RequestLog::default(),
            counts: BTreeMap::new(),
            write_rng: rng,
            items: BTreeMap::new(),
            numbers: BTreeSet::new(),
            open: BTreeMap::new(),
            scheduled: BTreeSet::new(),
        };
        model.enable();
        model
    }

    /// The clock, in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Advances the clock and runs all events that are scheduled. An earlier time changes nothing.
    pub fn advance_to(&mut self, now: u64) {
        while let Some((at, scheduled)) =
            self.scheduled.first().copied().filter(|(at, _)| *at <= now)
        {
            self.scheduled.pop_first();
            self.now = self.now.max(at);
            match scheduled {
                ScheduledEvent::Enable(stream) => self.open_first_shards(stream),
                ScheduledEvent::Roll(shard) => self.roll(shard),
            }
        }
        self.now = self.now.max(now);
    }

    /// Sets the clock back. Readers then see only what had happened at that time. Nothing may be
    /// written until the clock is where it was.
    pub fn rewind_to(&mut self, now: u64) {
        self.now = now;
        self.requests = RequestLog::default();
    }

    /// Enables a new stream. Does nothing unless there is none, or the last one is `DISABLED`.
    pub fn enable(&mut self) {
        let last = self.streams.last();
        if last.is_some_and(|stream| stream.status(self.now) != Status::Disabled) {
            return;
        }
        let requested = last.map_or(self.now, |stream| self.now.max(stream.requested + 1));
        self.streams.push(Stream {
            label: label(requested),
            requested: self.now,
            enabled: self.now + self.settings.enabling_ms,
            disabled: None,
            shards: BTreeMap::new(),
        });
        self.count("stream enabled");
        self.scheduled.insert((
            self.now + self.settings.enabling_ms,
            ScheduledEvent::Enable(self.streams.len() - 1),
        ));
        self.advance_to(self.now);
    }

    /// Disables the stream and closes its shards. Does nothing unless it is `ENABLED`.
    pub fn disable(&mut self) {
        let (now, done) = (self.now, self.now + self.settings.disabling_ms);
        let Some(stream) = self.streams.last_mut() else { return };
        if stream.status(now) != Status::Enabled {
            return;
        }
        stream.disabled = Some((now, done));
        for shard in std::mem::take(&mut self.open).into_values() {
            self.close(shard);
        }
        self.count("stream disabled");
    }

    /// Writes the value of an item, or deletes the item. Returns the index of the record; `None` if
    /// nothing changed, or if no stream receives records.
    pub fn write(&mut self, key: &Key, value: Option<u64>) -> Option<usize> {
        let last_created = self.records.last().map_or(0, |last| last.created);
        assert!(last_created <= self.now, "the clock must not be set back");
        let old = match value {
            Some(value) => self.items.insert(key.clone(), value),
            None => self.items.remove(key),
        };
        if old == value {
            return None;
        }
        let hash = shard::hash([&key.pk, &key.sk]);
        let (_, &shard) = self.open.range(..=hash).next_back()?;
        let delay = self.write_rng.u64(0..=self.settings.record_delay_ms);
        // Sequence numbers of a table are unique.
        let mut number = self.shards[shard].take_number(&mut self.write_rng);
        while !self.numbers.insert(number) {
            number = self.shards[shard].take_number(&mut self.write_rng);
        }
        // A delayed record delays all later ones of its shard.
        let before =
            self.shards[shard].records.last().map_or(0, |last| self.records[*last].readable);
        self.shards[shard].records.push(self.records.len());
        self.records.push(ModelRecord {
            shard,
            key: key.clone(),
            old,
            new: value,
            number,
            created: self.now,
            readable: before.max(self.now + delay),
        });
        Some(self.records.len() - 1)
    }

    /// Closes a shard and opens one child. Does nothing if the shard is closed.
    pub fn roll(&mut self, shard: usize) {
        if self.shards[shard].closed.is_some() {
            return;
        }
        self.count("shard rolled");
        self.close(shard);
        let Shard { stream, keys, .. } = self.shards[shard];
        self.open_shard(stream, Some(shard), keys);
    }

    /// Closes a shard and opens two children, each with half of its keys. Does nothing if the shard
    /// is closed.
    pub fn split(&mut self, shard: usize) {
        if self.shards[shard].closed.is_some() {
            return;
        }
        self.count("shard split");
        self.close(shard);
        let Shard { stream, keys: (first, last), .. } = self.shards[shard];
        let middle = first + (last - first) / 2;
        self.open_shard(stream, Some(shard), (first, middle));
        self.open_shard(stream, Some(shard), (middle + 1, last));
    }

    fn open_first_shards(&mut self, stream: usize) {
        let shards = self.settings.shards as u64;
        let width = u64::MAX / shards;
        for n in 0..shards {
            let last = if n + 1 == shards { u64::MAX } else { (n + 1) * width - 1 };
            self.open_shard(stream, None, (n * width, last));
        }
    }

    fn open_shard(&mut self, stream: usize, parent: Option<usize>, keys: (u64, u64)) {
        let index = self.shards.len();
        let write_rng = &mut self.write_rng;
        let id = std::iter::repeat_with(|| shard::id(self.now, write_rng))
            .find(|id| !self.streams[stream].shards.contains_key(id))
            .expect("ids are not exhausted");
        let start = match parent {
            Some(parent) => shard::number_after(self.shards[parent].next, &mut self.write_rng),
            None => shard::first_number(&mut self.write_rng),
        };
        let listed = self.now + self.draw_listing_delay();
        self.shards.push(Shard {
            id: id.clone(),
            stream,
            parent,
            children: vec![],
            opened: self.now,
            closed: None,
            listed,
            records: vec![],
            starting: start,
            next: start,
            keys,
        });
        self.streams[stream].shards.insert(id, index);
        self.open.insert(keys.0, index);
        if let Some(parent) = parent {
            self.shards[parent].children.push(index);
        }
        if let Some(roll) = self.settings.roll_ms {
            let about = self.write_rng.u64(roll - roll / 10..=roll + roll / 10).max(1);
            self.scheduled.insert((self.now + about, ScheduledEvent::Roll(index)));
        }
    }

    fn draw_listing_delay(&mut self) -> u64 {
        let (late, max) = (self.settings.inconsistency.late, self.settings.inconsistency.late_ms);
        if self.write_rng.f64() < late { self.write_rng.u64(0..=max) } else { 0 }
    }

    fn close(&mut self, shard: usize) {
        let shard = &mut self.shards[shard];
        shard.closed = Some(self.now);
        self.open.remove(&shard.keys.0);
    }

    /// All streams, oldest first.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// All shards, each after its parent.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// Shards that receive records now.
    pub fn open_shards(&self) -> Vec<usize> {
        self.open.values().copied().collect()
    }

    /// All records, in the order of their writes.
    pub fn records(&self) -> &[ModelRecord] {
        &self.records
    }

    /// The index of a shard.
    pub fn shard(&self, label: &str, id: &str) -> Option<usize> {
        self.streams.iter().find(|stream| stream.label == label)?.shards.get(id).copied()
    }

    /// The parent of a shard, its parent, and so on.
    pub fn ancestors(&self, shard: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.shards[shard].parent, |&shard| self.shards[shard].parent)
    }

    /// Whether a record is trimmed at a time.
    pub fn is_trimmed(&self, record: usize, at: u64) -> bool {
        self.records[record].created + self.settings.retention_ms <= at
    }

    /// The `eventID` of a record.
    pub fn event_id(&self, record: usize) -> String {
        format!(
            "{:032x}",
            (record as u128 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835)
        )
    }

    /// `TargetAttribute` in the old and new image, if the record has these images.
    pub fn images(&self, record: usize) -> [Option<u64>; 2] {
        let (record, view) = (&self.records[record], self.settings.view);
        [record.old.filter(|_| view.has_old()), record.new.filter(|_| view.has_new())]
    }

    /// Counts of requests, faults and transitions.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    pub(super) fn count(&mut self, what: &'static str) {
        self.count_more(what, 1);
    }

    pub(super) fn count_more(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    /// Draws whether a fault of this probability happens.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.read_rng.f64() < probability
    }

    /// The index of a stream that still exists.
    pub(super) fn find_stream(&self, label: &str) -> Result<usize, ServiceError> {
        let exists = |stream: &Stream| {
            stream.label == label && stream.exists(self.now, self.settings.retention_ms)
        };
        self.streams.iter().position(exists).ok_or(ServiceError::ResourceNotFound)
    }
}

/// A time in the format of a stream label.
fn label(milliseconds: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(milliseconds as i64).expect("time is in range");
    time.strftime("%Y-%m-%dT%H:%M:%S.%3f").to_string()
}
