//! Reads all shards side by side, each child after its parent, each stream after those before it.

pub mod gaps;
pub mod stream_status;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::config::ConsumerConfig;
use super::context::{ConsumerContext, ShardTask};
use super::listing::Listing;
use super::retention::{asked_since, kept_since};
use super::shard_consumer::End;
use super::shard_reader::ShardReader;
use super::{problems, shard_consumer};
use crate::checkpoint::{Positions, Start, StartedAt};
use crate::model::{KeyNames, Position, ShardId, StreamLabel, UnixSeconds};
use crate::streams::lineage::lineage_resolver::{Family, News};
use crate::streams::lineage::shard_graph::{Lineage, MANY_ENTRIES};
use crate::streams::lineage::stream_rollover::Drained;
use crate::streams::service::rate_limited::Calls;
use crate::streams::service::streams::{ReadFrom, Shard};
use crate::telemetry::{Part, Trouble};
use crate::timing::Failing;

/// While parents are being asked for, it is planned anew at most this often.
const BETWEEN_PLANS: Duration = Duration::from_secs(1);

/// A reader panicked: a fault of ours.
#[derive(Debug)]
pub struct Panicked;

/// The readers of a notifier.
#[derive(Debug)]
pub struct Reading {
    streams: Arc<Calls>,
    shared: Arc<ConsumerContext>,
    positions: Arc<Positions>,
    /// Where and when reading began.
    start: Start,
    /// What is older than this was not asked for, or is known to be lost.
    counts_since: UnixSeconds,
    /// The newest listing that was learned from: what is planned with another takes children for
    /// shards without parents.
    listing: Arc<Listing>,
    lineage: Lineage,
    drained: Drained,
    readers: JoinSet<(ShardId, End)>,
    /// Shards open at the start that have not answered yet.
    unanswered: Arc<Mutex<BTreeSet<ShardId>>>,
    family: Family,
    /// Streams whose records lack an image that the spec needs.
    passed_over: BTreeSet<StreamLabel>,
    /// How long a stream that is open has shown no shard.
    shardless: Failing,
    /// The key attributes of the table, which never change.
    keys: KeyNames,
    /// When it was last planned what to read.
    planned_at: Instant,
    /// Whether that is to be done anew.
    plan_is_due: bool,
}

impl Reading {
    /// No reader yet.
    pub fn new(
        streams: Arc<Calls>,
        shared: Arc<ConsumerContext>,
        positions: Arc<Positions>,
        start: Start,
    ) -> Self {
        Self {
            family: Family::new(streams.clone(), shared.clone()),
            streams,
            positions,
            counts_since: asked_since(&start),
            start,
            listing: shared.sweeper.newest(),
            lineage: Lineage::default(),
            drained: Drained::default(),
            readers: JoinSet::new(),
            unanswered: Arc::default(),
            passed_over: BTreeSet::new(),
            shardless: Failing::new(Duration::ZERO),
            keys: KeyNames::default(),
            planned_at: Instant::now(),
            plan_is_due: false,
            shared,
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
                    self.family.ask(id.clone());
                } else {
                    lock(&self.unanswered).insert(id.clone());
                }
            }
        }
        if !self.was_away(&first) {
            return Ok(());
        }
        self.listed(first, Some(read_at));
        loop {
            let look_at = self.drained.look_at(Instant::now());
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                Some(finished) = self.readers.join_next() => self.finished(finished)?,
                Some(news) = self.family.next() => self.heard(news)?,
                (number, listing) = shared.sweeper.after(seen) => {
                    seen = number;
                    self.listed(listing, None);
                }
                () = sleep_until(self.planned_at + BETWEEN_PLANS), if self.plan_is_due => {
                    self.read_streams();
                }
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    shared.sweeper.ask();
                }
            }
        }
    }

    /// Waits for the readers to end, after they were told to stop.
    pub async fn wait(&mut self) {
        self.family.abandon();
        while let Some(finished) = self.readers.join_next().await {
            // What a reader that panicked now had not settled is read again after the restart.
            let _ = self.finished(finished);
        }
    }

    /// What the first listing shows has been there since `read_at`.
    fn listed(&mut self, listing: Arc<Listing>, read_at: Option<UnixSeconds>) {
        self.listing = listing.clone();
        let listing = &*listing;
        let begun_at = self.shared.clock.at(listing.begun);
        if read_at.is_none() && !self.was_away(listing) {
            return;
        }
        self.positions.listed(begun_at);
        self.family.seen(listing);
        let entries = self.positions.all();
        let listed_at = read_at.unwrap_or_else(|| self.shared.clock.at(listing.ended));
        let mut forms = listing.streams.values().filter_map(|stream| stream.form.as_ref());
        if let Some((_, keys)) = forms.next_back() {
            self.keys = keys.clone();
        }
        for id in self.lineage.learn(listing, &entries, listed_at, Instant::now()) {
            self.positions.forget(&id);
        }
        self.read_streams();
        let positions = &self.positions;
        let is_open = |id: &ShardId| listing.has(id) && !positions.is_finished(id);
        self.answered(|id| is_open(id) || positions.is_read(id));
    }

    /// Begins what may be read of each stream, and of a later one only once those before it are
    /// drained; what it has begun, it goes on with.
    fn read_streams(&mut self) {
        let listing = &*self.listing.clone();
        let now = Instant::now();
        self.planned_at = now;
        self.plan_is_due = false;
        let mut current = None;
        let mut unfit = None;
        let mut waits_since = None;
        let mut shardless = None;
        for (label, stream) in &listing.streams {
            let entries = self.positions.of(label);
            if stream.is_gone() && self.passed_over.contains(label) {
                continue;
            }
            if entries.is_empty() {
                unfit = problems::unsupported_view(&self.shared.config.required_images, stream);
                let is_last = listing.newest().is_some_and(|(newest, _)| newest == label);
                if unfit.is_some() && !is_last {
                    // A stream keeps its images for life: what has others comes after it.
                    unfit = None;
                    if !self.pass_over(label) {
                        return;
                    }
                    continue;
                }
                if current.is_some() && !fault!(NextStreamStartsEarly) || unfit.is_some() {
                    let since = stream.shards().map(|(id, _)| self.unread_since(id));
                    waits_since = since.chain(waits_since).min();
                    continue;
                }
            }
            if stream.is_gone() && !self.is_gone_unread(label, &entries) {
                return;
            }
            let plan = self.lineage.plan(stream, &entries, kept_since(self.shared.clock.now()));
            if stream.is_open && stream.is_empty() && plan.read.is_empty() {
                shardless = Some(label);
            }
            let since = plan.wait.iter().map(|id| self.unread_since(id));
            waits_since = since.chain(waits_since).min();
            for (id, position) in plan.read {
                self.open(id, position);
            }
            for id in plan.doubted {
                self.family.doubt(id);
            }
            // Its last shards have been asked for children, in vain.
            let seems = plan.is_drained && !self.family.asks(label);
            let is_gone = stream.is_gone();
            if !self.drained.note(label, seems, is_gone, listing.begun, now) && current.is_none() {
                current = Some(label);
            }
        }
        self.positions.wait_since(waits_since);
        self.tell_streams(listing, current, unfit, shardless);
    }

    /// Tells which stream is read, and what keeps changes from being read: that one lacks an image, has
    /// no shard, or has no more.
    fn tell_streams(
        &mut self,
        listing: &Listing,
        current: Option<&StreamLabel>,
        unfit: Option<Trouble>,
        shardless: Option<&StreamLabel>,
    ) {
        let ConsumerContext { config, health, .. } = &*self.shared;
        let ConsumerConfig { follow, table, .. } = config;
        let ended = || stream_status::ended(follow, table, listing, current.is_none());
        let shardless = || stream_status::shardless(table, shardless, &mut self.shardless);
        match unfit.or_else(ended).or_else(shardless) {
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

    /// Begins to read a shard, unless somebody does.
    fn open(&mut self, id: ShardId, position: Position) {
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
        let task = ShardTask {
            reader: ShardReader::new(self.streams.clone(), id.clone(), from),
            keys: self.keys.clone(),
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
            let end = shard_consumer::read(&shared, task, answered).await;
            (id, end)
        });
    }

    /// Where reading begins in a shard that is settled up to `position`.
    fn from(&self, position: &Position) -> ReadFrom {
        match (position, self.shared.skip_before) {
            (Position::After(number), _) => ReadFrom::After(number.clone()),
            _ if fault!(ChildStartsAtLatest) => ReadFrom::At(self.shared.clock.now()),
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
                self.positions.finish(&id);
                if self.shared.stop.is_cancelled() || fault!(ChildrenNotRequested) {
                    return Ok(());
                }
                // What was listed already need not be asked for.
                let listing = self.listing.clone();
                let listed = listing.children(&id).iter();
                let parent = Some(id.clone());
                let listed = listed.map(|id| Shard { id: id.clone(), parent: parent.clone() });
                self.begin(listed.collect());
                if listing.children(&id).is_empty() {
                    self.family.ask(id);
                }
            }
        }
        Ok(())
    }

    /// Something was found out about a shard's family.
    fn heard(&mut self, news: Result<News, JoinError>) -> Result<(), Panicked> {
        match news.map_err(|_| Panicked)? {
            News::Children(parent, children) => {
                if children.is_empty() && self.listing.children(&parent).is_empty() {
                    // It may be the last one, of a stream that has another after it.
                    self.shared.sweeper.ask();
                    if !self.family.asks(&parent.stream) {
                        self.read_streams();
                    }
                }
                self.begin(children);
            }
            News::Gone(id) => {
                if !self.was_never_read(&id) {
                    return Ok(());
                }
                self.lineage.learn_gone(id);
                // Thousands may be asked for at once, and a plan looks at every shard.
                self.plan_is_due = true;
                if !self.family.doubts() {
                    self.read_streams();
                }
            }
            // Only a listing can tell what comes before it.
            News::There(_) => self.shared.sweeper.ask(),
            News::Unlisted(id) if self.positions.has(&id) => {}
            News::Unlisted(id) => match self.lineage.awaited(&id, &self.positions.all()).cloned() {
                None => self.open(id, Position::Start),
                Some(parent) if self.listing.has(&parent) || self.positions.has(&parent) => {}
                Some(parent) => self.family.doubt(parent),
            },
        }
        Ok(())
    }

    /// Begins the children of a finished shard.
    fn begin(&mut self, children: Vec<Shard>) {
        let now = self.shared.clock.now();
        for Shard { id, parent } in children {
            self.lineage.learn_shard(&id, parent.as_ref(), now);
            if !self.positions.has(&id) && !self.lineage.is_pruned(&id) {
                self.open(id, Position::Start);
                self.prune(parent);
            }
        }
    }

    /// Lets the entry of a finished parent go, if there are too many.
    fn prune(&mut self, parent: Option<ShardId>) {
        if let Some(parent) = parent.filter(|_| self.positions.len() > MANY_ENTRIES)
            && self.positions.is_finished(&parent)
        {
            self.positions.forget(&parent);
            self.lineage.learn_pruned(parent);
        }
    }
}

fn lock(unanswered: &Mutex<BTreeSet<ShardId>>) -> std::sync::MutexGuard<'_, BTreeSet<ShardId>> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}
