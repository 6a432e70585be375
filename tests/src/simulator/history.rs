//! What the workers did: what they claimed, read, delivered and gave up. The checks look here.

use std::collections::{BTreeMap, BTreeSet};

use super::connections::Connection;
use super::drop_invariants::{Answers, Manners, Told};
use crate::streams_model::{Key, Model, ModelRecord};

/// Whoever is to hold messages finds out with the next one: within this many milliseconds.
const UNTIL_HELD: u64 = 30_000;

/// How far a shard is remembered as settled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// Not at all.
    #[default]
    Nothing,
    /// Up to and with this number.
    UpTo(u128),
    /// All of it.
    All,
}

impl Mark {
    /// Whether a record of this number is remembered.
    pub fn covers(self, number: u128) -> bool {
        match self {
            Self::Nothing => false,
            Self::UpTo(last) => number <= last,
            Self::All => true,
        }
    }
}

/// What is to be delivered.
#[derive(Clone, Debug)]
pub struct Scope {
    /// The first stream that is read, as an index into the model's.
    pub first_stream: usize,
    /// What is older than this is not told, in seconds since 1970.
    pub not_before: Option<u64>,
    /// When reading began; what was trimmed before that is nobody's loss.
    pub began: u64,
}

/// A life and what it has done.
#[derive(Debug)]
pub struct Begun {
    /// When it began.
    pub at: u64,
    /// Whether a gap is to stop it.
    pub stops_at_gap: bool,
    /// When one did.
    pub halted_at: Option<u64>,
    /// Whether it stands still, and when it was last stopped in its tracks, or went on.
    pub is_paused: bool,
    pub paused_at: u64,
    /// Its last claim.
    pub claim: Option<usize>,
    /// The last answers to its posts.
    pub answers: Answers,
}

/// What one holder does under one claim.
#[derive(Debug)]
pub struct Claim {
    /// Which life.
    pub life: usize,
    /// Its epoch.
    pub epoch: u64,
    /// By shard, what was remembered when it was claimed.
    pub from: Vec<Mark>,
    /// ModelRecord and connection of what was delivered or given up.
    pub settled: BTreeSet<(usize, usize)>,
    /// When records were read.
    pub read_at: BTreeMap<usize, u64>,
    /// By shard, what was read of it.
    pub pages: BTreeMap<usize, Pages>,
    /// By item and connection, the last record posted.
    pub posted: BTreeMap<(Key, usize), usize>,
    /// By connection, the record of the post that is under way, and since when.
    pub posting: BTreeMap<usize, (usize, u64)>,
    /// By connection, what its last answers say.
    pub manners: BTreeMap<usize, Manners>,
    /// By record and connection, how many tries count.
    pub tried: BTreeMap<(usize, usize), u32>,
    /// How many messages were delivered.
    pub delivered: u64,
    /// The connections that were to be closed.
    pub disconnected: BTreeSet<usize>,
    /// By record, how many of its messages were given up, and when the last one was.
    pub drops: BTreeMap<usize, (u64, u64)>,
    /// The records whose letters were taken, or said to be lost.
    pub letters: BTreeSet<usize>,
    /// Since when no letter is taken.
    pub letters_fail_since: Option<u64>,
}

/// The records read of a shard.
#[derive(Debug, Default)]
pub struct Pages {
    /// The last page.
    pub last: Vec<usize>,
    /// Those of earlier ones that were not settled yet when last looked at.
    pub earlier: Vec<usize>,
}

/// All that was done.
#[derive(Debug, Default)]
pub struct History {
    /// Whether later streams of the table are read too.
    pub follows_table: bool,
    /// Every life.
    pub lives: Vec<Begun>,
    /// What is to be delivered, once a checkpoint says where reading began.
    pub scope: Option<Scope>,
    /// Every claim, in order.
    pub claims: Vec<Claim>,
    /// By shard, the furthest that was ever remembered.
    pub saved: Vec<Mark>,
    /// The shards that had an entry in the last save.
    pub entries: BTreeSet<usize>,
    /// The shards that ever had one.
    pub known: BTreeSet<usize>,
    /// ModelRecord and connection of all that was delivered.
    pub delivered: BTreeSet<(usize, usize)>,
    /// ModelRecord and connection of all that was given up and counted.
    pub dropped: BTreeSet<(usize, usize)>,
    /// From when to when rights or endpoint of the gateway were wrong: messages are held meanwhile.
    pub holds: Vec<(u64, u64)>,
    /// Records whose loss was declared as a gap.
    pub lost: BTreeSet<usize>,
    /// How many messages were given up, by the reason.
    pub told: Told,
    /// How many gaps were declared.
    pub gaps: u64,
    /// Which record gave an item its value.
    pub record_of: BTreeMap<u64, usize>,
}

impl Claim {
    /// A claim made just now, when so much was remembered.
    pub fn new(life: usize, epoch: u64, from: Vec<Mark>) -> Self {
        Self {
            life,
            epoch,
            from,
            settled: BTreeSet::new(),
            read_at: BTreeMap::new(),
            pages: BTreeMap::new(),
            posted: BTreeMap::new(),
            posting: BTreeMap::new(),
            manners: BTreeMap::new(),
            tried: BTreeMap::new(),
            delivered: 0,
            disconnected: BTreeSet::new(),
            drops: BTreeMap::new(),
            letters: BTreeSet::new(),
            letters_fail_since: None,
        }
    }
}

impl History {
    /// Nothing yet.
    pub fn new(follows_table: bool) -> Self {
        Self { follows_table, ..Self::default() }
    }

    /// A life begins; its number.
    pub fn begin_life(&mut self, at: u64, stops_at_gap: bool) -> usize {
        self.lives.push(Begun {
            at,
            stops_at_gap,
            halted_at: None,
            is_paused: false,
            paused_at: 0,
            claim: None,
            answers: Answers::default(),
        });
        self.lives.len() - 1
    }

    /// Whether a shard ever had an entry.
    pub fn is_known(&self, shard: usize) -> bool {
        self.known.contains(&shard)
    }

    /// Whether a shard is of a stream that is read.
    pub fn is_followed(&self, model: &Model, shard: usize) -> bool {
        let Some(scope) = &self.scope else { return false };
        let stream = model.shards()[shard].stream;
        match self.follows_table {
            true => stream >= scope.first_stream,
            false => stream == scope.first_stream,
        }
    }

    /// How far a shard is remembered.
    pub fn saved(&self, shard: usize) -> Mark {
        self.saved.get(shard).copied().unwrap_or_default()
    }

    /// Whether a record is to be delivered.
    pub fn is_due(&self, model: &Model, record: usize) -> bool {
        let Some(scope) = &self.scope else { return false };
        let ModelRecord { shard, created, .. } = model.records()[record];
        let is_in_time = match scope.not_before {
            Some(seconds) => created / 1_000 >= seconds,
            None => true,
        };
        self.is_followed(model, shard)
            && is_in_time
            && is_match(&model.records()[record])
            && !model.is_trimmed(record, scope.began)
    }

    /// Whether nothing is left to do about a record under a claim.
    pub fn is_settled(
        &self,
        model: &Model,
        connections: &[Connection],
        claim: &Claim,
        record: usize,
    ) -> bool {
        let ModelRecord { shard, number, .. } = model.records()[record];
        let is_remembered = claim.from.get(shard).copied().unwrap_or_default().covers(number);
        is_remembered
            || self.lost.contains(&record)
            || !self.is_due(model, record)
            || awaited(connections, &model.records()[record])
                .all(|connection| claim.settled.contains(&(record, connection)))
    }

    /// Rights and endpoint are right from now on.
    pub fn release(&mut self, now: u64) {
        for (_, until) in &mut self.holds {
            *until = now.min(*until);
        }
    }

    /// For how long rights and endpoint were right since a moment, at the least.
    pub fn unheld(&self, since: u64, now: u64) -> u64 {
        let held = self.holds.iter().map(|(from, until)| {
            let (from, until) = (since.max(*from), now.min(*until));
            until.saturating_sub(from).saturating_sub(UNTIL_HELD)
        });
        (now - since).saturating_sub(held.sum())
    }

    /// The open shards that the last holder has not read.
    pub fn unread(&self, model: &Model) -> Vec<usize> {
        let is_read =
            |shard: usize| self.claims.last().is_some_and(|claim| claim.pages.contains_key(&shard));
        let open = model.open_shards().into_iter();
        open.filter(|shard| self.is_followed(model, *shard) && !is_read(*shard)).collect()
    }

    /// The deliveries that are still owed.
    pub fn owed(&self, model: &Model, connections: &[Connection]) -> Vec<(usize, usize)> {
        let due = (0..model.records().len())
            .filter(|record| self.is_due(model, *record) && !self.lost.contains(record));
        let owed = due.flat_map(|record| {
            awaited(connections, &model.records()[record])
                .map(move |connection| (record, connection))
        });
        owed.filter(|pair| !self.delivered.contains(pair) && !self.dropped.contains(pair)).collect()
    }
}

/// Whether a record is one that somebody is told of: a change of an item that the filters let pass.
fn is_match(record: &ModelRecord) -> bool {
    record.key.pk.starts_with("target_pk#") && record.old.is_some() && record.new.is_some()
}

/// The connections that a record has to be delivered to: stored before it was written, and still.
fn awaited<'a>(
    connections: &'a [Connection],
    record: &ModelRecord,
) -> impl Iterator<Item = usize> + 'a {
    let (group, created) = (record.key.sk.clone(), record.created);
    let is_awaited = move |connection: &Connection| {
        connection.is_stored
            && !connection.is_gone
            && connection.stored_at < created
            && group.strip_prefix("target_sk#") == Some(&connection.group)
    };
    let all = connections.iter().enumerate();
    all.filter(move |(_, connection)| is_awaited(connection)).map(|(index, _)| index)
}
