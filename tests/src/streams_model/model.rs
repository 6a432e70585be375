//! The table: its items, its clock, its streams and shards, and every record ever written. What was
//! written never depends on who reads: reading draws from a randomness of its own.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;

use super::shard::{self, Shard};
use super::stream::{Status, Stream};
use super::throttle::Calls;
use super::{Refusal, Settings};

/// A table with streams.
#[derive(Debug)]
pub struct Model {
    /// What it is like; may be changed while it runs.
    pub settings: Settings,
    pub(super) now: u64,
    pub(super) streams: Vec<Stream>,
    pub(super) shards: Vec<Shard>,
    pub(super) records: Vec<ModelRecord>,
    pub(super) faults: Rng,
    pub(super) calls: Calls,
    counts: BTreeMap<&'static str, u64>,
    nature: Rng,
    items: BTreeMap<Key, u64>,
    /// The sequence numbers of all records.
    numbers: BTreeSet<u128>,
    /// The open shards by the first hash that they own.
    open: BTreeMap<u64, usize>,
    /// What happens by itself, and when.
    due: BTreeSet<(u64, Due)>,
}

/// An item's key attributes, `PK` and `SK`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The partition key.
    pub pk: String,
    /// The sort key.
    pub sk: String,
}

impl Key {
    /// The key of `target_pk#<item>`, `target_sk#<sk>`, which the example's filters let pass.
    pub fn target(item: &str, sk: &str) -> Self {
        Self { pk: format!("target_pk#{item}"), sk: format!("target_sk#{sk}") }
    }
}

/// One change of an item. Its index among the model's records is its place in what was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelRecord {
    /// The shard that it is in.
    pub shard: usize,
    /// The item.
    pub key: Key,
    /// `TargetAttribute` before; `None` where there was no item.
    pub old: Option<u64>,
    /// `TargetAttribute` after; `None` where the item is gone.
    pub new: Option<u64>,
    /// Its sequence number.
    pub number: u128,
    /// When it was written, in milliseconds; readers see the second.
    pub created: u64,
    /// From when it can be read.
    pub readable: u64,
}

impl ModelRecord {
    /// Its `eventName`.
    pub fn event(&self) -> &'static str {
        match (self.old, self.new) {
            (None, _) => "INSERT",
            (_, Some(_)) => "MODIFY",
            (_, None) => "REMOVE",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Due {
    Enable(usize),
    Roll(usize),
}

impl Model {
    /// A table without items and with a stream, enabled now.
    pub fn new(settings: Settings, mut rng: Rng, now: u64) -> Self {
        let mut model = Self {
            settings,
            now,
            streams: vec![],
            shards: vec![],
            records: vec![],
            faults: rng.fork(),
            calls: Calls::default(),
            counts: BTreeMap::new(),
            nature: rng,
            items: BTreeMap::new(),
            numbers: BTreeSet::new(),
            open: BTreeMap::new(),
            due: BTreeSet::new(),
        };
        model.enable();
        model
    }

    /// Its clock, in milliseconds since 1970.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Sets its clock, and lets everything happen that is due until then; never goes back.
    pub fn advance_to(&mut self, now: u64) {
        while let Some((at, due)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.pop_first();
            self.now = self.now.max(at);
            match due {
                Due::Enable(stream) => self.open_first_shards(stream),
                Due::Roll(shard) => self.roll(shard),
            }
        }
        self.now = self.now.max(now);
    }

    /// Sets its clock back: what has happened since is still to come, and readers see it once it has.
    /// Nothing may be written until the clock is where it was.
    pub fn rewind_to(&mut self, now: u64) {
        self.now = now;
        self.calls = Calls::default();
    }

    /// Enables a stream, which has a label of its own. Does nothing unless there is none, or the last
    /// one is `DISABLED`.
    pub fn enable(&mut self) {
        let last = self.streams.last();
        if last.is_some_and(|stream| stream.status(self.now) != Status::Disabled) {
            return;
        }
        let asked = last.map_or(self.now, |stream| self.now.max(stream.asked + 1));
        self.streams.push(Stream {
            label: label(asked),
            asked: self.now,
            enabled: self.now + self.settings.enabling_ms,
            disabled: None,
            shards: BTreeMap::new(),
        });
        self.count("stream enabled");
        self.due
            .insert((self.now + self.settings.enabling_ms, Due::Enable(self.streams.len() - 1)));
        self.advance_to(self.now);
    }

    /// Disables the stream, which closes its shards at once. Does nothing unless it is `ENABLED`.
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

    /// Writes an item's value, or deletes the item, and says which record that made: none if nothing
    /// changed, or if no stream takes records.
    pub fn write(&mut self, key: &Key, value: Option<u64>) -> Option<usize> {
        let last = self.records.last().map_or(0, |last| last.created);
        assert!(last <= self.now, "the clock was set back");
        let old = match value {
            Some(value) => self.items.insert(key.clone(), value),
            None => self.items.remove(key),
        };
        if old == value {
            return None;
        }
        let hash = shard::hash([&key.pk, &key.sk]);
        let (_, &shard) = self.open.range(..=hash).next_back()?;
        let delay = self.nature.u64(0..=self.settings.record_delay_ms);
        // No two records of a table have the same.
        let mut number = self.shards[shard].take_number(&mut self.nature);
        while !self.numbers.insert(number) {
            number = self.shards[shard].take_number(&mut self.nature);
        }
        // A record that is late holds up those behind it.
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

    /// Closes a shard and opens one child. Does nothing unless it is open.
    pub fn roll(&mut self, shard: usize) {
        if self.shards[shard].closed.is_some() {
            return;
        }
        self.count("shard rolled");
        self.close(shard);
        let Shard { stream, keys, .. } = self.shards[shard];
        self.open_shard(stream, Some(shard), keys);
    }

    /// Closes a shard and opens two children, each with half of its keys. Does nothing unless it is
    /// open.
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
        let nature = &mut self.nature;
        let id = std::iter::repeat_with(|| shard::id(self.now, nature))
            .find(|id| !self.streams[stream].shards.contains_key(id))
            .expect("there is always another");
        let starting = match parent {
            Some(parent) => shard::number_after(self.shards[parent].next, &mut self.nature),
            None => shard::first_number(&mut self.nature),
        };
        let listed = self.now + self.lateness();
        self.shards.push(Shard {
            id: id.clone(),
            stream,
            parent,
            children: vec![],
            opened: self.now,
            closed: None,
            listed,
            records: vec![],
            starting,
            next: starting,
            keys,
        });
        self.streams[stream].shards.insert(id, index);
        self.open.insert(keys.0, index);
        if let Some(parent) = parent {
            self.shards[parent].children.push(index);
        }
        if let Some(roll) = self.settings.roll_ms {
            let about = self.nature.u64(roll - roll / 10..=roll + roll / 10).max(1);
            self.due.insert((self.now + about, Due::Roll(index)));
        }
    }

    fn lateness(&mut self) -> u64 {
        let (late, most) = (self.settings.inconsistency.late, self.settings.inconsistency.late_ms);
        if self.nature.f64() < late { self.nature.u64(0..=most) } else { 0 }
    }

    fn close(&mut self, shard: usize) {
        let shard = &mut self.shards[shard];
        shard.closed = Some(self.now);
        self.open.remove(&shard.keys.0);
    }

    /// Every stream there ever was, the oldest first.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Every shard there ever was, a parent before its children.
    pub fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shards that take records now.
    pub fn open_shards(&self) -> Vec<usize> {
        self.open.values().copied().collect()
    }

    /// Every record ever written, in the order written.
    pub fn records(&self) -> &[ModelRecord] {
        &self.records
    }

    /// The shard of this id in the stream of this label.
    pub fn shard(&self, label: &str, id: &str) -> Option<usize> {
        self.streams.iter().find(|stream| stream.label == label)?.shards.get(id).copied()
    }

    /// A shard's parent, its parent's parent and so on.
    pub fn ancestors(&self, shard: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(self.shards[shard].parent, |&shard| self.shards[shard].parent)
    }

    /// Whether a record can no longer be read at a time.
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

    /// `TargetAttribute` in the old and in the new image, where the record carries them.
    pub fn images(&self, record: usize) -> [Option<u64>; 2] {
        let (record, view) = (&self.records[record], self.settings.view);
        [record.old.filter(|_| view.has_old()), record.new.filter(|_| view.has_new())]
    }

    /// How often each thing has happened until now: calls, faults, transitions.
    pub fn counts(&self) -> &BTreeMap<&'static str, u64> {
        &self.counts
    }

    pub(super) fn count(&mut self, what: &'static str) {
        self.count_more(what, 1);
    }

    pub(super) fn count_more(&mut self, what: &'static str, times: u64) {
        *self.counts.entry(what).or_default() += times;
    }

    /// Whether a fault of this probability happens now.
    pub(super) fn chance(&mut self, probability: f64) -> bool {
        probability > 0.0 && self.faults.f64() < probability
    }

    /// The stream of this label, while it is kept.
    pub(super) fn kept_stream(&self, label: &str) -> Result<usize, Refusal> {
        let kept = |stream: &Stream| {
            stream.label == label && stream.exists(self.now, self.settings.retention_ms)
        };
        self.streams.iter().position(kept).ok_or(Refusal::ResourceNotFound)
    }
}

/// A time as AWS writes a stream's label.
fn label(milliseconds: u64) -> String {
    let time = jiff::Timestamp::from_millisecond(milliseconds as i64).expect("within 9,999 years");
    time.strftime("%Y-%m-%dT%H:%M:%S.%3f").to_string()
}
