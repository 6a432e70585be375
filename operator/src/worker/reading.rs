//! Reads all shards side by side, each child after its parent, each stream after those before it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::calls::Calls;
use super::family::{Asking, ask, ask_again, is_gone};
use super::positions::Positions;
use super::retention::{asked_since, lost_seconds};
use super::shard::{self, End, Shared, Task};
use super::succession::{self, Drained};
use crate::checkpoint::{Start, StartedAt};
use crate::delivery::{Connections, Gateway};
use crate::record::{Position, ShardId, UnixSeconds};
use crate::stream::{Described, Lineage, Listing, ReadFrom, Shard, ShardReader, Streams};
use crate::telemetry::Part;

/// While parents are being asked for, it is planned anew at most this often.
const BETWEEN_PLANS: Duration = Duration::from_secs(1);

/// A reader panicked: a fault of ours.
#[derive(Debug)]
pub struct Panicked;

/// The readers of a notifier.
#[derive(Debug)]
pub struct Reading<S, C, G> {
    streams: Arc<Calls<S>>,
    shared: Arc<Shared<C, G>>,
    positions: Arc<Positions>,
    /// Where and when reading began.
    start: Start,
    /// What is older than this was not asked for, or is known to be lost.
    counts_since: UnixSeconds,
    lineage: Lineage,
    drained: Drained,
    readers: JoinSet<(ShardId, End)>,
    /// Shards open at the start that have not answered yet.
    unanswered: Arc<Mutex<BTreeSet<ShardId>>>,
    /// Finished shards whose children are being asked for.
    childless: BTreeSet<ShardId>,
    askers: JoinSet<(ShardId, Vec<Shard>)>,
    asking: Asking,
    /// Parents that are not listed, and are being asked for.
    doubted: BTreeSet<ShardId>,
    doubters: JoinSet<(ShardId, bool)>,
    /// When it was last planned what to read.
    planned_at: Instant,
}

impl<S: Streams, C: Connections, G: Gateway> Reading<S, C, G> {
    /// No reader yet.
    pub fn new(
        streams: Arc<Calls<S>>,
        shared: Arc<Shared<C, G>>,
        positions: Arc<Positions>,
        start: Start,
    ) -> Self {
        Self {
            streams,
            shared,
            positions,
            counts_since: asked_since(&start),
            start,
            lineage: Lineage::default(),
            drained: Drained::default(),
            readers: JoinSet::new(),
            unanswered: Arc::default(),
            childless: BTreeSet::new(),
            askers: JoinSet::new(),
            asking: Asking::default(),
            doubted: BTreeSet::new(),
            doubters: JoinSet::new(),
            planned_at: Instant::now(),
        }
    }

    /// Reads until told to stop. What the first listing shows may have been there, unread, since
    /// `read_at`.
    pub async fn run(&mut self, read_at: UnixSeconds) -> Result<(), Panicked> {
        let shared = self.shared.clone();
        let (mut seen, first) = shared.sweeper.numbered();
        for stream in first.streams.values() {
            for (id, _) in stream.shards().filter(|(id, _)| stream.is_leaf(id)) {
                if self.positions.is_finished(id) {
                    // Its children may not be listed yet.
                    self.ask_for_children(id.clone());
                } else {
                    lock(&self.unanswered).insert(id.clone());
                }
            }
        }
        if !self.was_away(&first, read_at) {
            return Ok(());
        }
        self.listed(&first, Some(read_at));
        loop {
            let look_at = self.drained.look_at(Instant::now());
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                Some(finished) = self.readers.join_next() => self.finished(finished)?,
                Some(asked) = self.askers.join_next() => self.asked(asked, &shared.sweeper.newest())?,
                Some(doubted) = self.doubters.join_next() => self.resolved(doubted, &shared.sweeper.newest())?,
                (number, listing) = shared.sweeper.after(seen) => {
                    seen = number;
                    self.listed(&listing, None);
                }
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    shared.sweeper.ask();
                }
            }
        }
    }

    /// Waits for the readers to end, after they were told to stop.
    pub async fn wait(&mut self) {
        self.askers.abort_all();
        self.doubters.abort_all();
        while let Some(finished) = self.readers.join_next().await {
            // What a reader that panicked now had not settled is read again after the restart.
            let _ = self.finished(finished);
        }
    }

    /// Tells that nobody looked for longer than records are kept, where no shard is left that would
    /// tell it: one may have come and gone. `false` if that stops everything.
    fn was_away(&mut self, first: &Listing, read_at: UnixSeconds) -> bool {
        let shared = &self.shared;
        let now = shared.clock.now();
        let is_left = self.positions.all().values().any(|it| *it != Position::Finished);
        let (Some((newest, _)), Some(lost), false) =
            (first.newest(), lost_seconds(read_at, now), is_left)
        else {
            return true;
        };
        self.counts_since = now;
        shared.gap(newest, None, "nothing was read for more than 24 hours", lost)
    }

    /// What the first listing shows has been there since `read_at`.
    fn listed(&mut self, listing: &Listing, read_at: Option<UnixSeconds>) {
        if let Some((now, at)) = listing.ended_at {
            self.shared.clock.set(now, at);
            let entries = self.positions.all();
            let listed_at = read_at.unwrap_or(now);
            for id in self.lineage.learn(listing, &entries, listed_at, Instant::now()) {
                self.positions.forget(&id);
            }
        }
        self.read_streams(listing);
        let positions = &self.positions;
        let is_open = |id: &ShardId| listing.has(id) && !positions.is_finished(id);
        self.answered(|id| is_open(id) || positions.is_read(id));
    }

    /// Begins what may be read of each stream, and of a later one only once those before it are
    /// drained; what it has begun, it goes on with.
    fn read_streams(&mut self, listing: &Listing) {
        let now = Instant::now();
        self.planned_at = now;
        let mut current = None;
        let mut unfit = None;
        let mut waits_since = None;
        for (label, stream) in &listing.streams {
            let entries = self.positions.of(label);
            if entries.is_empty() {
                unfit = unfit.or_else(|| succession::unfit(&self.shared.notifier, stream));
                if current.is_some() || unfit.is_some() {
                    let since = stream.shards().map(|(id, _)| self.unread_since(id));
                    waits_since = since.chain(waits_since).min();
                    continue;
                }
            }
            let plan = self.lineage.plan(stream, &entries);
            let since = plan.wait.iter().map(|id| self.unread_since(id));
            waits_since = since.chain(waits_since).min();
            for (id, position) in plan.read {
                self.open(id, position, stream);
            }
            for id in plan.doubted {
                self.doubt(id);
            }
            // Its last shards have been asked for children, in vain.
            let is_asked = self.childless.iter().all(|id| id.stream != *label);
            let (seems, is_gone) = (plan.is_drained && is_asked, stream.form.is_none());
            if !self.drained.note(label, seems, is_gone, now) && current.is_none() {
                current = Some(label);
            }
        }
        self.positions.wait_since(waits_since);
        let Shared { follow, table, health, .. } = &*self.shared;
        match unfit.or_else(|| succession::ended(follow, table, listing, current.is_none())) {
            Some(trouble) => health.troubled(Part::Ended, trouble),
            None => health.well(&Part::Ended),
        }
        let newest = listing.newest().map(|(label, _)| label);
        health.reads(current.or(newest));
    }

    /// The worker has started once every open shard has answered; those that are not to be waited
    /// for any more are left out.
    fn answered(&self, is_awaited: impl Fn(&ShardId) -> bool) {
        let mut unanswered = lock(&self.unanswered);
        unanswered.retain(is_awaited);
        if unanswered.is_empty() {
            self.shared.health.started();
        }
    }

    /// Since when a shard that was never read may have had records that count: since it was made, if
    /// that is known, else since it was listed first.
    fn unread_since(&self, id: &ShardId) -> UnixSeconds {
        let now = self.shared.clock.now();
        match id.made_at() {
            Some(made_at) => made_at.max(self.counts_since).min(now),
            None => self.lineage.listed_at(id).map_or(now, |at| at.max(self.counts_since)),
        }
    }

    /// Begins to read a shard, unless somebody does.
    fn open(&mut self, id: ShardId, position: Position, stream: &Described) {
        if self.positions.is_read(&id) {
            return;
        }
        let begins_now = self.start.position == StartedAt::Latest
            && self.start.label() == id.stream.as_str()
            && position == Position::Start;
        let position = if begins_now { Position::Latest } else { position };
        let read_at = self.unread_since(&id);
        let from = self.from(&position);
        self.shared.telemetry.shard_opened(&id, &from);
        // One that is gone is looked for all the same, and not found: it has no records to judge.
        let keys = stream.form.as_ref().map(|(_, keys)| keys.clone()).unwrap_or_default();
        let task = Task {
            reader: ShardReader::new(self.streams.clone(), id.clone(), from),
            keys,
            progress: self.positions.open(id.clone(), position, read_at),
        };
        let shared = self.shared.clone();
        let unanswered = self.unanswered.clone();
        self.readers.spawn(async move {
            let answered = || {
                let mut unanswered = lock(&unanswered);
                if unanswered.remove(&id) && unanswered.is_empty() {
                    shared.health.started();
                }
            };
            let end = shard::read(&shared, task, answered).await;
            (id, end)
        });
    }

    /// Where reading begins in a shard that is settled up to `position`.
    fn from(&self, position: &Position) -> ReadFrom {
        match (position, self.shared.not_before) {
            (Position::After(number), _) => ReadFrom::After(number.clone()),
            // The moment reading began, never the service's LATEST: that is another moment at each
            // call. In a shard that was made later it is the start. One to come is refused; until
            // then all that comes is skipped.
            (_, Some(moment)) => {
                let now = self.shared.clock.now();
                ReadFrom::At(moment.min(UnixSeconds(now.0.saturating_sub(1))))
            }
            (_, None) => ReadFrom::Start,
        }
    }

    fn finished(&mut self, finished: Result<(ShardId, End), JoinError>) -> Result<(), Panicked> {
        match finished.map_err(|_| Panicked)? {
            (_, End::Stopped) => {}
            (id, End::Finished) => {
                self.shared.telemetry.shard_finished(&id);
                self.positions.finish(&id, self.shared.clock.now());
                if self.shared.stop.is_cancelled() {
                    return Ok(());
                }
                // What was listed already need not be asked for.
                let newest = self.shared.sweeper.newest();
                let listed = newest.children(&id).iter();
                let parent = Some(id.clone());
                let listed = listed.map(|id| Shard { id: id.clone(), parent: parent.clone() });
                self.begin(listed.collect(), &newest);
                if newest.children(&id).is_empty() {
                    self.ask_for_children(id);
                }
            }
        }
        Ok(())
    }

    /// Finds out whether a parent that is not listed is gone, or only missing from a listing.
    fn doubt(&mut self, id: ShardId) {
        if self.doubted.insert(id.clone()) {
            let (streams, shared) = (self.streams.clone(), self.shared.clone());
            self.doubters.spawn(async move {
                let is_gone = is_gone(&streams, &id, &shared).await;
                (id, is_gone)
            });
        }
    }

    fn resolved(
        &mut self,
        resolved: Result<(ShardId, bool), JoinError>,
        newest: &Listing,
    ) -> Result<(), Panicked> {
        let (id, is_gone) = resolved.map_err(|_| Panicked)?;
        self.doubted.remove(&id);
        if is_gone {
            self.lineage.learn_gone(id);
            // Thousands may be asked for at once, and a plan looks at every shard.
            if self.doubted.is_empty() || self.planned_at.elapsed() >= BETWEEN_PLANS {
                self.read_streams(newest);
            }
        } else {
            // Only a listing can tell what comes before it.
            self.shared.sweeper.ask();
        }
        Ok(())
    }

    fn ask_for_children(&mut self, id: ShardId) {
        self.childless.insert(id.clone());
        let (streams, shared) = (self.streams.clone(), self.shared.clone());
        let asking = self.asking.clone();
        self.askers.spawn(async move {
            let children = ask(&streams, &shared.sweeper, &id, &asking, &shared.random).await;
            (id, children)
        });
    }

    /// Begins the children of a finished shard.
    fn begin(&mut self, children: Vec<Shard>, newest: &Listing) {
        let now = self.shared.clock.now();
        for Shard { id, parent } in children {
            self.lineage.learn_shard(&id, parent.as_ref(), now);
            let is_known = self.positions.has(&id) || self.lineage.is_pruned(&id);
            if let Some(stream) = newest.streams.get(&id.stream).filter(|_| !is_known) {
                self.open(id, Position::Start, stream);
            }
        }
    }

    /// The children of a finished shard are known, or none are found.
    fn asked(
        &mut self,
        asked: Result<(ShardId, Vec<Shard>), JoinError>,
        newest: &Listing,
    ) -> Result<(), Panicked> {
        let (parent, children) = asked.map_err(|_| Panicked)?;
        let is_first = self.childless.remove(&parent);
        let found = children.len();
        self.begin(children, newest);
        if !is_first {
            return Ok(());
        }
        if found == 0 {
            // It may be the last one, of a stream that has another after it.
            self.shared.sweeper.ask();
            if self.childless.iter().all(|id| id.stream != parent.stream) {
                self.read_streams(newest);
            }
        }
        if found == 1 {
            let streams = self.streams.clone();
            self.askers.spawn(async move {
                let children = ask_again(&streams, &parent).await;
                (parent, children)
            });
        }
        Ok(())
    }
}

fn lock(unanswered: &Mutex<BTreeSet<ShardId>>) -> std::sync::MutexGuard<'_, BTreeSet<ShardId>> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}
