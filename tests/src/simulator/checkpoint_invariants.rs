//! Checks every checkpoint that is stored: only the holder writes it, it is never ahead of
//! delivery, and no watermark goes back.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::history::{Claim, Scope, Watermark};
use super::world::State;
use crate::streams_model::Model;

/// Keys of the ConfigMap that are not shards.
const FIELDS: [&str; 5] = ["format", "holder", "epoch", "start", "readAt"];

/// A stored checkpoint, parsed without the operator's code.
struct SavedCheckpoint<'a> {
    holder: &'a str,
    epoch: u64,
    start: Value,
    watermarks: BTreeMap<usize, Watermark>,
}

impl<'a> SavedCheckpoint<'a> {
    fn read(model: &Model, data: &'a BTreeMap<String, String>) -> Option<Self> {
        let mut watermarks = BTreeMap::new();
        for (key, value) in data.iter().filter(|(key, _)| !FIELDS.contains(&key.as_str())) {
            let value: Value = serde_json::from_str(value).ok()?;
            let shard = model.shard(value["stream"].as_str()?, key)?;
            let watermark = match value["after"].as_str()? {
                "latest" | "trimHorizon" => Watermark::Start,
                "finished" => Watermark::Finished,
                number => Watermark::UpTo(number.parse().ok()?),
            };
            watermarks.insert(shard, watermark);
        }
        Some(Self {
            holder: data.get("holder")?,
            epoch: data.get("epoch")?.parse().ok()?,
            start: serde_json::from_str(data.get("start")?).ok()?,
            watermarks,
        })
    }
}

impl State {
    pub fn check_save(&mut self, model: &Model, process: usize, data: &BTreeMap<String, String>) {
        let Some(saved) = SavedCheckpoint::read(model, data) else {
            let details =
                format!("worker-{process} stores a checkpoint that cannot be parsed: {data:?}");
            return self.report_violation(model, "one writer", details);
        };
        self.trace_line(model, || {
            format!("worker-{process}: stores epoch {}: {:?}", saved.epoch, saved.watermarks)
        });
        if saved.holder != format!("worker-{process}") {
            let details = format!("worker-{process} stores the holder {}", saved.holder);
            self.report_violation(model, "one writer", details);
        }
        if self.history.scope.is_none() {
            self.record_scope(model, process, &saved);
        }
        self.check_writer(model, process, &saved);
        self.check_marks(model, process, &saved);
    }

    /// Records what the first checkpoint says about the start position.
    fn record_scope(&mut self, model: &Model, process: usize, saved: &SavedCheckpoint<'_>) {
        let text = |key: &str| saved.start[key].as_str().unwrap_or_default();
        let label = text("stream").rsplit('/').next().unwrap_or_default();
        let first_stream = model.streams().iter().position(|stream| stream.label == label);
        let at = text("at").parse::<jiff::Timestamp>().map(|at| at.as_second() as u64);
        let (Some(first_stream), Ok(at)) = (first_stream, at) else {
            let details = format!("worker-{process} stores the start {}", saved.start);
            return self.report_violation(model, "no silent data gap", details);
        };
        let not_before = (text("position") != "TrimHorizon").then_some(at);
        // The service's clock, not before this process first requested it.
        let started_at_s = self.history.processes[process].at / 1_000;
        if text("position") == "Latest"
            && !(started_at_s.saturating_sub(2)..=model.now() / 1_000).contains(&at)
        {
            let details = format!(
                "worker-{process} stores {at} as the current time, which is {}",
                model.now()
            );
            self.report_violation(model, "no silent data gap", details);
        }
        let started_at = model.now();
        self.history.scope = Some(Scope { first_stream, not_before, started_at });
    }

    /// A write is a claim with the next epoch, or it is the holder's.
    fn check_writer(&mut self, model: &Model, process: usize, saved: &SavedCheckpoint<'_>) {
        let SavedCheckpoint { epoch, .. } = *saved;
        let holder = self.history.claims.last().map(|claim| (claim.process, claim.epoch));
        let last = holder.map_or(0, |(_, epoch)| epoch);
        if epoch == last + 1 {
            self.counts.add("claim");
            let from = self.history.saved.clone();
            self.history.claims.push(Claim::new(process, epoch, from));
            let claim = self.history.claims.len() - 1;
            self.history.processes[process].claim = Some(claim);
        } else if holder != Some((process, epoch)) {
            let details =
                format!("worker-{process} stores epoch {epoch}, but the claim is {holder:?}");
            self.report_violation(model, "one writer", details);
        }
    }

    /// Checks that no watermark goes back, and that all records below it are settled.
    fn check_marks(&mut self, model: &Model, process: usize, saved: &SavedCheckpoint<'_>) {
        let entries: BTreeSet<_> = saved.watermarks.keys().copied().collect();
        let forgotten: Vec<_> = self.history.entries.difference(&entries).copied().collect();
        self.history.known.extend(&entries);
        self.history.entries = entries;
        self.history.saved.resize(model.shards().len(), Watermark::Start);
        // A shard without an entry counts as finished.
        let watermarks = forgotten.into_iter().map(|shard| (shard, Watermark::Finished));
        for (shard, watermark) in
            watermarks.chain(saved.watermarks.iter().map(|(shard, watermark)| (*shard, *watermark)))
        {
            let before = self.history.saved(shard);
            if watermark < before {
                let details = format!(
                    "worker-{process} moves shard {shard} back from {before:?} to {watermark:?}"
                );
                self.report_violation(model, "checkpoint monotone", details);
            }
            self.check_not_ahead(model, process, shard, watermark);
            self.history.saved[shard] = before.max(watermark);
        }
    }

    fn check_not_ahead(
        &mut self,
        model: &Model,
        process: usize,
        shard: usize,
        watermark: Watermark,
    ) {
        let before = self.history.saved(shard);
        if watermark <= before {
            return;
        }
        let State { history, connections, .. } = &*self;
        let Some(index) = history.processes[process].claim else { return };
        let claim = &history.claims[index];
        let is_new = |record: &usize| {
            let number = model.records()[*record].number;
            watermark.covers(number) && !before.covers(number)
        };
        let of = &model.shards()[shard];
        let unsettled: Vec<_> = of
            .records
            .iter()
            .copied()
            .filter(is_new)
            .filter(|record| {
                !history.is_settled(model, connections, claim, *record)
                    || self.lacks_dead_letter(index, *record)
            })
            .collect();
        if !unsettled.is_empty() {
            let details = format!(
                "worker-{process} stores shard {shard} up to {watermark:?}, but {unsettled:?} are not settled"
            );
            self.report_violation(model, "checkpoint never ahead", details);
        } else if watermark == Watermark::Finished && of.closed.is_none() {
            let details =
                format!("worker-{process} stores shard {shard} as finished, but it is open");
            self.report_violation(model, "checkpoint never ahead", details);
        }
    }
}
