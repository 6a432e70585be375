//! Checks at every post, page and data gap. Those of checkpoints, drops and liveness are in
//! [`checkpoint_invariants`](super::checkpoint_invariants),
//! [`drop_invariants`](super::drop_invariants) and [`liveness`](super::liveness).

use stream_notifier::model::Record;
use stream_notifier::streams::{RecordPage, StreamError};

use super::connections::Connection;
use super::gateway::Post;
use super::history::{Claim, History};
use super::world::{EPOCH_MS, State};
use crate::streams_model::{Model, ModelRecord};

/// The longest time that a call can be in flight.
const MAX_CALL_TIME_MS: u64 = 10_000;

/// The longest time by which a listing can be stale. Records that it does not show can be older by
/// as much.
const MAX_LISTING_LAG_MS: u64 = 15_000;

impl State {
    /// Checks that a connection has at most one post in flight, and the claim at most its limit.
    pub fn check_post_started(&mut self, model: &Model, post: Post) {
        let Post { claim, connection, record } = post;
        let posts_in_flight = &mut self.history.claims[claim].posts_in_flight;
        let is_second = posts_in_flight.insert(connection, (record, model.now())).is_some();
        let in_flight = posts_in_flight.len();
        if is_second {
            let details = format!("claim {claim} has two posts in flight to conn{connection:02}");
            self.report_violation(model, "order", details);
        } else if in_flight > self.limits.max_posts {
            let details = format!("claim {claim} has {in_flight} posts in flight");
            self.report_violation(model, "posts bounded", details);
        }
    }

    /// Checks a post that arrives: its record is due, was not settled when the claim was made, was
    /// not delivered under the claim before, and is not older than the last one of its item.
    pub fn check_post_arrived(&mut self, model: &Model, post: Post) {
        let Post { claim: index, connection, record } = post;
        let of = &model.records()[record];
        let what = format!("record {record} to conn{connection:02} under claim {index}");
        let is_due = self.history.is_due(model, record);
        let claim = &mut self.history.claims[index];
        let is_in_checkpoint =
            claim.from.get(of.shard).is_some_and(|watermark| watermark.covers(of.number));
        let is_repeated = claim.settled.contains(&(record, connection));
        let is_read = claim.read_at.contains_key(&record);
        let before = claim.posted.insert((of.key.clone(), connection), record);
        let violation = match before {
            _ if !is_due || !is_read => Some(("no undue messages", what)),
            _ if is_in_checkpoint => {
                Some(("duplicates bounded", format!("{what}, but the checkpoint had settled it")))
            }
            _ if is_repeated => {
                Some(("duplicates bounded", format!("{what}, but it was delivered before")))
            }
            Some(later) if later > record => Some(("order", format!("{what}, after {later}"))),
            _ => None,
        };
        if let Some((guarantee, details)) = violation {
            self.report_violation(model, guarantee, details);
        }
    }

    /// Checks a read: the worker has claimed the checkpoint, all records before the shard are
    /// settled, and the records in progress fit into the memory.
    pub fn check_read(&mut self, model: &Model, process: usize, shard: usize) {
        let halted_at = self.history.processes[process].halted_at;
        if halted_at.is_some_and(|at| at + MAX_CALL_TIME_MS < model.now()) {
            let details =
                format!("worker-{process} reads shard {shard} after a data gap that must stop it");
            self.report_violation(model, "stop on data gap", details);
        }
        let Some(claim) = self.history.processes[process].claim else {
            let details = format!("worker-{process} reads shard {shard} without a claim");
            return self.report_violation(model, "one writer", details);
        };
        let State { history, connections, limits, .. } = self;
        // Every message has less than 1 KiB, and counts as 1 KiB.
        let memory = limits.memory_kib as usize;
        let claim = &history.claims[claim];
        let unsettled = |record: &usize| !history.is_settled(model, connections, claim, *record);
        let before = before(model, history, shard);
        let left: Vec<_> = before
            .filter(|record| !model.is_trimmed(*record, model.now()))
            .filter(unsettled)
            .collect();
        let in_progress: Vec<_> = history.in_progress(model, connections, claim, shard);
        let violation = if !left.is_empty() {
            let details =
                format!("worker-{process} reads shard {shard} before {left:?} are settled");
            Some(("child after parent", details))
        } else if in_progress.len() > memory {
            let details = format!(
                "worker-{process} reads with {in_progress:?} in progress, over {memory} KiB"
            );
            Some(("memory bounded", details))
        } else {
            None
        };
        if let Some((guarantee, details)) = violation {
            self.report_violation(model, guarantee, details);
        }
    }

    /// Records the response to GetRecords.
    pub fn record_page(
        &mut self,
        model: &Model,
        process: usize,
        shard: usize,
        response: &Result<RecordPage, StreamError>,
    ) {
        let page = match response {
            Ok(page) => page,
            Err(error) => {
                let kind = error.kind;
                return self
                    .trace_line(model, || format!("worker-{process}: shard {shard}: {kind}"));
            }
        };
        let number = |record: &Record| record.sequence_number.as_str().parse::<u128>().ok();
        let numbers: Vec<_> = page.records.iter().filter_map(number).collect();
        let in_shard = &model.shards()[shard].records;
        let on_page: Vec<_> = in_shard
            .iter()
            .copied()
            .filter(|record| numbers.contains(&model.records()[*record].number))
            .collect();
        let is_end = page.next_iterator.is_none();
        if !on_page.is_empty() || is_end {
            let end = if is_end { ", the end" } else { "" };
            self.trace_line(model, || format!("worker-{process}: shard {shard}: {on_page:?}{end}"));
        }
        let State { history, connections, .. } = self;
        let Some(claim) = history.processes[process].claim else { return };
        let earlier = history.unsettled_in_shard(model, connections, &history.claims[claim], shard);
        let claim = &mut history.claims[claim];
        for record in &on_page {
            claim.read_at.entry(*record).or_insert(model.now());
        }
        let pages = claim.pages.entry(shard).or_default();
        pages.earlier = earlier;
        pages.last = on_page;
    }

    /// Checks a data gap that a worker reports, and records which records it covers: trimmed
    /// records of the lineage of the shard, and of the reported seconds those in shards without an
    /// entry.
    pub fn check_gap(&mut self, model: &Model, process: usize, shard: Option<usize>, seconds: u64) {
        let (now, retention) = (model.now(), model.settings.retention_ms);
        let since = now.saturating_sub(retention + seconds * 1_000 + MAX_LISTING_LAG_MS);
        let history = &self.history;
        let stream = |shard: usize| model.shards()[shard].stream;
        let is_of_line = |shard: usize, other: usize| {
            other == shard
                || model.ancestors(shard).any(|it| it == other)
                || model.ancestors(other).any(|it| it == shard)
                // Later streams of the table.
                || history.follows_table && stream(other) > stream(shard)
        };
        let started_at = history.scope.as_ref().map_or(0, |scope| scope.started_at);
        let is_lost = |&record: &usize| {
            let ModelRecord { shard: of, created, .. } = model.records()[record];
            // The reported seconds do not include those before reading started.
            let is_in_time = created >= since || created < started_at;
            let is_reported = shard.is_some_and(|shard| is_of_line(shard, of))
                || !history.is_known(of) && is_in_time;
            is_reported && model.is_trimmed(record, now)
        };
        let lost: Vec<_> = (0..model.records().len()).filter(is_lost).collect();
        self.trace_line(model, || {
            format!(
                "worker-{process}: data gap of {seconds} s in shard {shard:?}: {lost:?} are lost"
            )
        });
        if EPOCH_MS + retention > now {
            let details = format!(
                "worker-{process} reports a data gap in shard {shard:?}, but nothing was trimmed yet"
            );
            self.report_violation(model, "no false data gap", details);
        }
        self.history.gaps += 1;
        let started = &mut self.history.processes[process];
        if started.stops_at_gap {
            // The checkpoint stays before the gap until the spec changes.
            started.halted_at.get_or_insert(now);
            self.counts.add("data gap, stopped");
        } else {
            self.history.lost.extend(lost);
            self.counts.add("data gap, continued from the oldest record");
        }
    }
}

impl History {
    /// Records in progress when a claim reads a shard again: all that it has read and not settled,
    /// except the last pages of other shards, which may not be in memory yet.
    fn in_progress(
        &self,
        model: &Model,
        connections: &[Connection],
        claim: &Claim,
        shard: usize,
    ) -> Vec<usize> {
        let read = claim.pages.iter().flat_map(|(of, pages)| {
            let last = (*of == shard).then_some(&pages.last);
            pages.earlier.iter().chain(last.into_iter().flatten())
        });
        read.copied()
            .filter(|record| !self.is_settled(model, connections, claim, *record))
            .collect()
    }

    /// Records that a claim has read of a shard and not settled.
    fn unsettled_in_shard(
        &self,
        model: &Model,
        connections: &[Connection],
        claim: &Claim,
        shard: usize,
    ) -> Vec<usize> {
        let pages = claim.pages.get(&shard);
        let read = pages.into_iter().flat_map(|pages| pages.earlier.iter().chain(&pages.last));
        read.copied()
            .filter(|record| !self.is_settled(model, connections, claim, *record))
            .collect()
    }
}

/// Records that must be settled before a shard is read: those of its parent, and of earlier
/// streams.
fn before<'a>(
    model: &'a Model,
    history: &'a History,
    shard: usize,
) -> impl Iterator<Item = usize> + 'a {
    let of = &model.shards()[shard];
    let follows_table = history.follows_table;
    let is_before = move |record: &ModelRecord| {
        of.parent == Some(record.shard)
            || follows_table && model.shards()[record.shard].stream < of.stream
    };
    let all = model.records().iter().enumerate();
    all.filter(move |(_, record)| is_before(record)).map(|(index, _)| index)
}
