//! Everything that the workers did in a run: what they claimed, read, delivered and dropped. The
//! checks evaluate it.

use std::collections::{BTreeMap, BTreeSet};

use super::connections::Connection;
use super::drop_invariants::DropCounts;
use super::post_history::{ConnectionHistory, EndpointHistory};
use crate::streams_model::{Key, Model, ModelRecord};

/// The time until a worker finds out that API Gateway rejects its posts. A failed message is
/// retried within 10 s, and a post lasts for up to 15 s.
const MAX_HOLD_DELAY_MS: u64 = 30_000;

/// The settled records of a shard, as a checkpoint stores them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Watermark {
    /// None.
    #[default]
    Start,
    /// All up to this sequence number.
    UpTo(u128),
    /// All records of a finished shard.
    Finished,
}

impl Watermark {
    pub fn covers(self, number: u128) -> bool {
        match self {
            Self::Start => false,
            Self::UpTo(last) => number <= last,
            Self::Finished => true,
        }
    }
}

/// The records that must be delivered.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The first stream that is read, as an index into the model's.
    pub first_stream: usize,
    /// Older records are not delivered; Unix seconds. `None` is TrimHorizon.
    pub not_before: Option<u64>,
    /// Start of the first worker. The service may trim older records before it reads them.
    pub started_at: u64,
}

#[derive(Debug)]
pub struct ProcessHistory {
    pub at: u64,
    pub stops_at_gap: bool,
    /// The first data gap that must stop it.
    pub halted_at: Option<u64>,
    /// The last time at which it was paused or resumed.
    pub paused_at: u64,
    /// Its latest claim.
    pub claim: Option<usize>,
    pub endpoint: EndpointHistory,
}

/// What one process does under one claim.
#[derive(Debug)]
pub struct Claim {
    pub process: usize,
    pub epoch: u64,
    /// The stored watermarks at the time of the claim, by shard.
    pub from: Vec<Watermark>,
    /// Record and connection of each message that was delivered or dropped.
    pub settled: BTreeSet<(usize, usize)>,
    /// The time at which each record was read.
    pub read_at: BTreeMap<usize, u64>,
    /// By shard.
    pub pages: BTreeMap<usize, Pages>,
    /// The last record posted, by item and connection.
    pub posted: BTreeMap<(Key, usize), usize>,
    /// The record and the start of each post in flight, by connection.
    pub posts_in_flight: BTreeMap<usize, (usize, u64)>,
    pub connections: BTreeMap<usize, ConnectionHistory>,
    /// Failed posts that count as attempts, by record and connection.
    pub failed_attempts: BTreeMap<(usize, usize), u32>,
    /// Delivered messages.
    pub delivered: u64,
    /// Connections that the worker has disconnected.
    pub disconnected: BTreeSet<usize>,
    /// By record: the number of its dropped messages, and the time of the last drop.
    pub drops: BTreeMap<usize, (u64, u64)>,
    /// Records whose dead letter was sent, or was reported as lost.
    pub dead_letters: BTreeSet<usize>,
    /// Since this time, no dead letter was sent.
    pub dead_letters_fail_since: Option<u64>,
}

#[derive(Debug, Default)]
pub struct Pages {
    pub last: Vec<usize>,
    /// Records of earlier pages that were unsettled when the last page was read.
    pub earlier: Vec<usize>,
}

#[derive(Debug, Default)]
pub struct History {
    /// Whether the workers also read later streams of the table.
    pub follows_table: bool,
    pub processes: Vec<ProcessHistory>,
    /// Unknown until the first checkpoint is stored.
    pub scope: Option<Scope>,
    /// In the order of their epochs.
    pub claims: Vec<Claim>,
    /// The largest watermark that was ever stored, by shard.
    pub saved: Vec<Watermark>,
    /// Shards with an entry in the stored checkpoint.
    pub entries: BTreeSet<usize>,
    /// Shards that ever had an entry.
    pub known: BTreeSet<usize>,
    /// Record and connection of each delivered message.
    pub delivered: BTreeSet<(usize, usize)>,
    /// Record and connection of each dropped message.
    pub dropped: BTreeSet<(usize, usize)>,
    /// Periods in which API Gateway rejects every post because of permissions or the endpoint.
    pub holds: Vec<(u64, u64)>,
    /// Records that were reported as a data gap.
    pub lost: BTreeSet<usize>,
    pub drop_counts: DropCounts,
    /// Reported data gaps.
    pub gaps: u64,
    /// The record that gave an item its value.
    pub record_of: BTreeMap<u64, usize>,
}

impl Claim {
    pub fn new(process: usize, epoch: u64, from: Vec<Watermark>) -> Self {
        Self {
            process,
            epoch,
            from,
            settled: BTreeSet::new(),
            read_at: BTreeMap::new(),
            pages: BTreeMap::new(),
            posted: BTreeMap::new(),
            posts_in_flight: BTreeMap::new(),
            connections: BTreeMap::new(),
            failed_attempts: BTreeMap::new(),
            delivered: 0,
            disconnected: BTreeSet::new(),
            drops: BTreeMap::new(),
            dead_letters: BTreeSet::new(),
            dead_letters_fail_since: None,
        }
    }
}

impl History {
    pub fn new(follows_table: bool) -> Self {
        Self { follows_table, ..Self::default() }
    }

    /// Adds a process and returns its index.
    pub fn start_process(&mut self, at: u64, stops_at_gap: bool) -> usize {
        self.processes.push(ProcessHistory {
            at,
            stops_at_gap,
            halted_at: None,
            paused_at: 0,
            claim: None,
            endpoint: EndpointHistory::default(),
        });
        self.processes.len() - 1
    }

    /// Whether a shard ever had a checkpoint entry.
    pub fn is_known(&self, shard: usize) -> bool {
        self.known.contains(&shard)
    }

    /// Whether the workers read the stream of a shard.
    pub fn is_followed(&self, model: &Model, shard: usize) -> bool {
        let Some(scope) = &self.scope else { return false };
        let stream = model.shards()[shard].stream;
        match self.follows_table {
            true => stream >= scope.first_stream,
            false => stream == scope.first_stream,
        }
    }

    pub fn saved(&self, shard: usize) -> Watermark {
        self.saved.get(shard).copied().unwrap_or_default()
    }

    /// Whether the workers must deliver a record.
    pub fn is_due(&self, model: &Model, record: usize) -> bool {
        let Some(scope) = &self.scope else { return false };
        let ModelRecord { shard, created, .. } = model.records()[record];
        let is_in_time = match scope.not_before {
            Some(seconds) => created / 1_000 >= seconds,
            None => true,
        };
        self.is_followed(model, shard)
            && is_in_time
            && matches_rules(&model.records()[record])
            && !model.is_trimmed(record, scope.started_at)
    }

    /// Whether a claim has nothing left to do for a record.
    pub fn is_settled(
        &self,
        model: &Model,
        connections: &[Connection],
        claim: &Claim,
        record: usize,
    ) -> bool {
        let ModelRecord { shard, number, .. } = model.records()[record];
        let is_in_checkpoint = claim.from.get(shard).copied().unwrap_or_default().covers(number);
        is_in_checkpoint
            || self.lost.contains(&record)
            || !self.is_due(model, record)
            || recipients(connections, &model.records()[record])
                .all(|connection| claim.settled.contains(&(record, connection)))
    }

    /// Ends all periods in which posts are rejected.
    pub fn end_holds(&mut self, now: u64) {
        for (_, until) in &mut self.holds {
            *until = now.min(*until);
        }
    }

    /// The largest possible age of a message that was read at `since`: the elapsed time, less the
    /// time in which the worker certainly held its posts.
    pub fn max_age_ms(&self, since: u64, now: u64) -> u64 {
        let held = self.holds.iter().map(|(from, until)| {
            let (from, until) = (since.max(*from), now.min(*until));
            until.saturating_sub(from).saturating_sub(MAX_HOLD_DELAY_MS)
        });
        (now - since).saturating_sub(held.sum())
    }

    /// Open shards that the last claim has not read.
    pub fn unread(&self, model: &Model) -> Vec<usize> {
        let is_read =
            |shard: usize| self.claims.last().is_some_and(|claim| claim.pages.contains_key(&shard));
        let open = model.open_shards().into_iter();
        open.filter(|shard| self.is_followed(model, *shard) && !is_read(*shard)).collect()
    }

    /// Record and connection of each message that must still be delivered.
    pub fn undelivered(&self, model: &Model, connections: &[Connection]) -> Vec<(usize, usize)> {
        let due = (0..model.records().len())
            .filter(|record| self.is_due(model, *record) && !self.lost.contains(record));
        let undelivered = due.flat_map(|record| {
            recipients(connections, &model.records()[record])
                .map(move |connection| (record, connection))
        });
        undelivered
            .filter(|pair| !self.delivered.contains(pair) && !self.dropped.contains(pair))
            .collect()
    }
}

/// Whether the rules match: the filters match the key, and the item was modified.
fn matches_rules(record: &ModelRecord) -> bool {
    record.key.pk.starts_with("target_pk#") && record.old.is_some() && record.new.is_some()
}

/// The connections that must receive a record: those stored before its write, and still stored.
fn recipients<'a>(
    connections: &'a [Connection],
    record: &ModelRecord,
) -> impl Iterator<Item = usize> + 'a {
    let (group, created) = (record.key.sk.clone(), record.created);
    let is_recipient = move |connection: &Connection| {
        connection.is_stored
            && !connection.is_closed
            && connection.stored_at < created
            && group.strip_prefix("target_sk#") == Some(&connection.group)
    };
    let all = connections.iter().enumerate();
    all.filter(move |(_, connection)| is_recipient(connection)).map(|(index, _)| index)
}
