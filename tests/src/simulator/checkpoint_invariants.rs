//! The guarantees of the checkpoint, looked at whenever one is stored: one writer, never ahead of
//! delivery, never back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::history::{Claim, Mark, Scope};
use super::world::State;
use crate::streams_model::Model;

/// The keys that are not shards.
const FIELDS: [&str; 5] = ["format", "holder", "epoch", "start", "readAt"];

/// A stored checkpoint, read without the product's help.
struct Saved<'a> {
    holder: &'a str,
    epoch: u64,
    start: Value,
    /// By shard, with whether it has a number or is finished.
    marks: BTreeMap<usize, Mark>,
}

impl<'a> Saved<'a> {
    fn read(model: &Model, data: &'a BTreeMap<String, String>) -> Option<Self> {
        let mut marks = BTreeMap::new();
        for (key, value) in data.iter().filter(|(key, _)| !FIELDS.contains(&key.as_str())) {
            let value: Value = serde_json::from_str(value).ok()?;
            let shard = model.shard(value["stream"].as_str()?, key)?;
            let mark = match value["after"].as_str()? {
                "latest" | "start" => Mark::Nothing,
                "finished" => Mark::All,
                number => Mark::UpTo(number.parse().ok()?),
            };
            marks.insert(shard, mark);
        }
        Some(Self {
            holder: data.get("holder")?,
            epoch: data.get("epoch")?.parse().ok()?,
            start: serde_json::from_str(data.get("start")?).ok()?,
            marks,
        })
    }
}

impl State {
    /// A life stores a checkpoint.
    pub fn check_save(&mut self, model: &Model, life: usize, data: &BTreeMap<String, String>) {
        let Some(saved) = Saved::read(model, data) else {
            let how = format!("worker-{life} stores what cannot be read: {data:?}");
            return self.break_guarantee(model, "one writer", how);
        };
        self.note(model, || {
            format!("worker-{life}: epoch {} saved: {:?}", saved.epoch, saved.marks)
        });
        if saved.holder != format!("worker-{life}") {
            let how = format!("worker-{life} stores as {}", saved.holder);
            self.break_guarantee(model, "one writer", how);
        }
        if self.history.scope.is_none() {
            self.begin(model, life, &saved);
        }
        self.check_writer(model, life, &saved);
        self.check_marks(model, life, &saved);
    }

    /// The first checkpoint: it says from when on everything is told.
    fn begin(&mut self, model: &Model, life: usize, saved: &Saved<'_>) {
        let text = |key: &str| saved.start[key].as_str().unwrap_or_default();
        let label = text("stream").rsplit('/').next().unwrap_or_default();
        let first_stream = model.streams().iter().position(|stream| stream.label == label);
        let at = text("at").parse::<jiff::Timestamp>().map(|at| at.as_second() as u64);
        let (Some(first_stream), Ok(at)) = (first_stream, at) else {
            let how = format!("worker-{life} begins at {}", saved.start);
            return self.break_guarantee(model, "no silent gap", how);
        };
        let not_before = (text("position") != "TrimHorizon").then_some(at);
        // By the service's clock, not before this life began to look at it.
        let earliest = self.history.lives[life].at / 1_000;
        if text("position") == "Latest"
            && !(earliest.saturating_sub(2)..=model.now() / 1_000).contains(&at)
        {
            let how = format!("worker-{life} takes {at} for now, which is {}", model.now());
            self.break_guarantee(model, "no silent gap", how);
        }
        let began = model.now();
        self.history.scope = Some(Scope { first_stream, not_before, began });
    }

    /// A save is a claim, with the next epoch, or the holder's.
    fn check_writer(&mut self, model: &Model, life: usize, saved: &Saved<'_>) {
        let Saved { epoch, .. } = *saved;
        let holder = self.history.claims.last().map(|claim| (claim.life, claim.epoch));
        let last = holder.map_or(0, |(_, epoch)| epoch);
        if epoch == last + 1 {
            self.counts.add("claim");
            let from = self.history.saved.clone();
            self.history.claims.push(Claim::new(life, epoch, from));
            let claim = self.history.claims.len() - 1;
            self.history.lives[life].claim = Some(claim);
        } else if holder != Some((life, epoch)) {
            let how = format!("worker-{life} stores epoch {epoch}, and {holder:?} has claimed it");
            self.break_guarantee(model, "one writer", how);
        }
    }

    /// No position goes back, and all that is remembered, or not any more, is settled.
    fn check_marks(&mut self, model: &Model, life: usize, saved: &Saved<'_>) {
        let entries: BTreeSet<_> = saved.marks.keys().copied().collect();
        let forgotten: Vec<_> = self.history.entries.difference(&entries).copied().collect();
        self.history.known.extend(&entries);
        self.history.entries = entries;
        self.history.saved.resize(model.shards().len(), Mark::Nothing);
        // What is not remembered any more counts as finished.
        let marks = forgotten.into_iter().map(|shard| (shard, Mark::All));
        for (shard, mark) in marks.chain(saved.marks.iter().map(|(shard, mark)| (*shard, *mark))) {
            let before = self.history.saved(shard);
            if mark < before {
                let how =
                    format!("worker-{life} sets shard {shard} back from {before:?} to {mark:?}");
                self.break_guarantee(model, "monotone", how);
            }
            self.check_not_ahead(model, life, shard, mark);
            self.history.saved[shard] = before.max(mark);
        }
    }

    fn check_not_ahead(&mut self, model: &Model, life: usize, shard: usize, mark: Mark) {
        let before = self.history.saved(shard);
        if mark <= before {
            return;
        }
        let State { history, connections, .. } = &*self;
        let Some(index) = history.lives[life].claim else { return };
        let claim = &history.claims[index];
        let is_new = |record: &usize| {
            let number = model.records()[*record].number;
            mark.covers(number) && !before.covers(number)
        };
        let of = &model.shards()[shard];
        let unsettled: Vec<_> = of
            .records
            .iter()
            .copied()
            .filter(is_new)
            .filter(|record| {
                !history.is_settled(model, connections, claim, *record)
                    || self.lacks_letter(index, *record)
            })
            .collect();
        if !unsettled.is_empty() {
            let how = format!(
                "worker-{life} remembers shard {shard} up to {mark:?}, but {unsettled:?} are not settled"
            );
            self.break_guarantee(model, "checkpoint never ahead", how);
        } else if mark == Mark::All && of.closed.is_none() {
            let how = format!("worker-{life} remembers shard {shard} as finished, which is open");
            self.break_guarantee(model, "checkpoint never ahead", how);
        }
    }
}
