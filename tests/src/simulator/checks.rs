//! The guarantees, looked at while a run goes on: at every post, page and drop. Those of the
//! checkpoint are in [`saves`](super::checkpoint_invariants), what has to hold in the end in
//! [`ending`](super::liveness).

use stream_notifier::model::Record;
use stream_notifier::streams::{RecordPage, StreamError};

use super::connections::Connection;
use super::gateway::Post;
use super::history::{Claim, History};
use super::world::{EPOCH_MS, State};
use crate::streams_model::{Model, ModelRecord};

/// How long a call may have been under way, in milliseconds.
const UNDER_WAY: u64 = 10_000;

/// How far a listing may be behind: what it does not show may be older than it by that, in
/// milliseconds.
const BEHIND: u64 = 15_000;

impl State {
    /// A post leaves a worker: there is none under way to its connection.
    pub fn check_departure(&mut self, model: &Model, post: Post) {
        let Post { claim, connection, record } = post;
        let posting = &mut self.history.claims[claim].posting;
        let is_second = posting.insert(connection, (record, model.now())).is_some();
        let under_way = posting.len();
        if is_second {
            let how = format!("claim {claim} has two posts under way to conn{connection:02}");
            self.break_guarantee(model, "order", how);
        } else if under_way > self.bounds.max_posts {
            let how = format!("claim {claim} has {under_way} posts under way");
            self.break_guarantee(model, "posts bounded", how);
        }
    }

    /// A post arrives: its record is due, was not remembered as settled when its claim was made, was
    /// not delivered under it before, and is no older than what its connection has of its item.
    pub fn check_arrival(&mut self, model: &Model, post: Post) {
        let Post { claim: index, connection, record } = post;
        let of = &model.records()[record];
        let told = format!("record {record} to conn{connection:02} under claim {index}");
        let is_due = self.history.is_due(model, record);
        let claim = &mut self.history.claims[index];
        let is_remembered = claim.from.get(of.shard).is_some_and(|mark| mark.covers(of.number));
        let is_repeated = claim.settled.contains(&(record, connection));
        let is_read = claim.read_at.contains_key(&record);
        let before = claim.posted.insert((of.key.clone(), connection), record);
        let broken = match before {
            _ if !is_due || !is_read => Some(("nothing told that is not due", told)),
            _ if is_remembered => {
                Some(("duplicates bounded", format!("{told}, though remembered as settled")))
            }
            _ if is_repeated => {
                Some(("duplicates bounded", format!("{told}, though it was delivered")))
            }
            Some(later) if later > record => Some(("order", format!("{told}, after {later}"))),
            _ => None,
        };
        if let Some((guarantee, how)) = broken {
            self.break_guarantee(model, guarantee, how);
        }
    }

    /// A worker reads a shard: it has claimed the checkpoint, everything before the shard is
    /// settled, and what is at work leaves room for a page.
    pub fn check_reading(&mut self, model: &Model, life: usize, shard: usize) {
        let halted_at = self.history.lives[life].halted_at;
        if halted_at.is_some_and(|at| at + UNDER_WAY < model.now()) {
            let how = format!("worker-{life} reads shard {shard} although a gap stops it");
            self.break_guarantee(model, "a gap stops", how);
        }
        let Some(claim) = self.history.lives[life].claim else {
            let how = format!("worker-{life} reads shard {shard} and has claimed nothing");
            return self.break_guarantee(model, "one writer", how);
        };
        let State { history, connections, bounds, .. } = self;
        // Every message is smaller than one KiB, which is what it counts for.
        let memory = bounds.memory_kib as usize;
        let claim = &history.claims[claim];
        let unsettled = |record: &usize| !history.is_settled(model, connections, claim, *record);
        let before = before(model, history, shard);
        let left: Vec<_> = before
            .filter(|record| !model.is_trimmed(*record, model.now()))
            .filter(unsettled)
            .collect();
        let at_work: Vec<_> = history.at_work(model, connections, claim, shard);
        let broken = if !left.is_empty() {
            let how = format!("worker-{life} reads shard {shard} before {left:?} are settled");
            Some(("child after parent", how))
        } else if at_work.len() > memory {
            let how = format!("worker-{life} reads on with {at_work:?} at work, over {memory}");
            Some(("memory bounded", how))
        } else {
            None
        };
        if let Some((guarantee, how)) = broken {
            self.break_guarantee(model, guarantee, how);
        }
    }

    /// A worker gets a page, or does not.
    pub fn take_page(
        &mut self,
        model: &Model,
        life: usize,
        shard: usize,
        answer: &Result<RecordPage, StreamError>,
    ) {
        let page = match answer {
            Ok(page) => page,
            Err(error) => {
                let kind = error.kind;
                return self.note(model, || format!("worker-{life}: shard {shard}: {kind}"));
            }
        };
        let number = |change: &Record| change.sequence_number.as_str().parse::<u128>().ok();
        let numbers: Vec<_> = page.records.iter().filter_map(number).collect();
        let of_shard = &model.shards()[shard].records;
        let on_page: Vec<_> = of_shard
            .iter()
            .copied()
            .filter(|record| numbers.contains(&model.records()[*record].number))
            .collect();
        let is_end = page.next_iterator.is_none();
        if !on_page.is_empty() || is_end {
            let end = if is_end { ", the end" } else { "" };
            self.note(model, || format!("worker-{life}: shard {shard}: {on_page:?}{end}"));
        }
        let State { history, connections, .. } = self;
        let Some(claim) = history.lives[life].claim else { return };
        let earlier = history.unsettled_of(model, connections, &history.claims[claim], shard);
        let claim = &mut history.claims[claim];
        for record in &on_page {
            claim.read_at.entry(*record).or_insert(model.now());
        }
        let pages = claim.pages.entry(shard).or_default();
        pages.earlier = earlier;
        pages.last = on_page;
    }

    /// A worker declares a gap, of so many seconds, in a shard or in any: what was trimmed until now
    /// of its line is told of, and of those seconds what was in shards that nobody ever saw.
    pub fn declare_gap(&mut self, model: &Model, life: usize, shard: Option<usize>, seconds: u64) {
        let (now, retention) = (model.now(), model.settings.retention_ms);
        let since = now.saturating_sub(retention + seconds * 1_000 + BEHIND);
        let history = &self.history;
        let stream = |shard: usize| model.shards()[shard].stream;
        let is_of_line = |shard: usize, other: usize| {
            other == shard
                || model.ancestors(shard).any(|it| it == other)
                || model.ancestors(other).any(|it| it == shard)
                // What comes after all of this stream.
                || history.follows_table && stream(other) > stream(shard)
        };
        let began = history.scope.as_ref().map_or(0, |scope| scope.began);
        let is_lost = |&record: &usize| {
            let ModelRecord { shard: of, created, .. } = model.records()[record];
            // Nobody counts the seconds before reading began.
            let is_in_time = created >= since || created < began;
            let is_told = shard.is_some_and(|shard| is_of_line(shard, of))
                || !history.is_known(of) && is_in_time;
            is_told && model.is_trimmed(record, now)
        };
        let lost: Vec<_> = (0..model.records().len()).filter(is_lost).collect();
        self.note(model, || {
            format!("worker-{life}: gap of {seconds} s in shard {shard:?}: {lost:?} are lost")
        });
        if EPOCH_MS + retention > now {
            let how = format!(
                "worker-{life} declares a gap in shard {shard:?}, and nothing was trimmed yet"
            );
            self.break_guarantee(model, "no false alarm", how);
        }
        self.history.gaps += 1;
        let begun = &mut self.history.lives[life];
        if begun.stops_at_gap {
            // The checkpoint stays before the gap, and somebody has to decide.
            begun.halted_at.get_or_insert(now);
            self.counts.add("gap, and a stop");
        } else {
            self.history.lost.extend(lost);
            self.counts.add("gap, and on from the oldest left");
        }
    }
}

impl History {
    /// Records that a claim has at work when it reads a shard again: all that it has read and that
    /// are not settled, but the last pages of other shards, which may still be in hand.
    fn at_work(
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

    /// The records read of a shard that are not settled.
    fn unsettled_of(
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

/// The records that come before all of a shard: its parent's, and those of streams before its own.
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
