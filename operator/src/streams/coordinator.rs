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
use super::retention::{requested_since, trim_horizon};
use super::shard_consumer::ShardExit;
use super::shard_reader::ShardReader;
use super::{problems, shard_consumer};
use crate::checkpoint::{Positions, StartKind, StartPoint};
use crate::model::{KeySchema, Position, ShardId, StreamLabel, UnixSeconds};
use crate::streams::lineage::lineage_resolver::{LineageEvent, LineageResolver};
use crate::streams::lineage::shard_graph::{PRUNE_THRESHOLD, ShardGraph};
use crate::streams::lineage::stream_rollover::DrainTracker;
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::streams::service::streams::{IteratorStart, Shard};
use crate::telemetry::{Component, Problem};
use crate::timing::FailureTracker;

/// While parents are being asked for, it is planned anew at most this often.
const MIN_PLAN_INTERVAL: Duration = Duration::from_secs(1);

/// A reader panicked: a fault of ours.
#[derive(Debug)]
pub struct Panicked;

/// The readers of a notifier.
#[derive(Debug)]
pub struct ShardCoordinator {
    streams: Arc<RateLimitedStreams>,
    context: Arc<ConsumerContext>,
    positions: Arc<Positions>,
    /// Where and when reading began.
    start: StartPoint,
    /// What is older than this was not asked for, or is known to be lost.
    requested_since: UnixSeconds,
    /// The newest listing that was learned from: what is planned with another takes children for
    /// shards without parents.
    listing: Arc<Listing>,
    graph: ShardGraph,
    drain_tracker: DrainTracker,
    readers: JoinSet<(ShardId, ShardExit)>,
    /// Shards open at the start that have not answered yet.
    unread_shards: Arc<Mutex<BTreeSet<ShardId>>>,
    resolver: LineageResolver,
    /// Streams whose records lack an image that the spec needs.
    skipped_streams: BTreeSet<StreamLabel>,
    /// How long a stream that is open has shown no shard.
    empty_stream: FailureTracker,
    /// The key attributes of the table, which never change.
    keys: KeySchema,
    /// When it was last planned what to read.
    planned_at: Instant,
    /// Whether that is to be done anew.
    plan_is_due: bool,
}

impl ShardCoordinator {
    /// No reader yet.
    pub fn new(
        streams: Arc<RateLimitedStreams>,
        context: Arc<ConsumerContext>,
        positions: Arc<Positions>,
        start: StartPoint,
    ) -> Self {
        Self {
            resolver: LineageResolver::new(streams.clone(), context.clone()),
            streams,
            positions,
            requested_since: requested_since(&start),
            start,
            listing: context.lister.latest(),
            graph: ShardGraph::default(),
            drain_tracker: DrainTracker::default(),
            readers: JoinSet::new(),
            unread_shards: Arc::default(),
            skipped_streams: BTreeSet::new(),
            empty_stream: FailureTracker::new(Duration::ZERO),
            keys: KeySchema::default(),
            planned_at: Instant::now(),
            plan_is_due: false,
            context,
        }
    }

    /// Reads until told to stop. What the first listing shows may have been there, unread, since
    /// `read_at`.
    pub async fn run(&mut self, read_at: UnixSeconds) -> Result<(), Panicked> {
        let shared = self.context.clone();
        let (mut seen, first) = shared.lister.latest_numbered();
        for stream in first.streams.values() {
            for (id, _) in stream.shards().filter(|(id, _)| stream.is_leaf(id)) {
                if self.positions.is_finished(id) {
                    // Its children may not be listed yet.
                    self.resolver.find_children(id.clone());
                } else {
                    lock(&self.unread_shards).insert(id.clone());
                }
            }
        }
        if !self.check_downtime_gap(&first) {
            return Ok(());
        }
        self.on_listing(first, Some(read_at));
        loop {
            let look_at = self.drain_tracker.next_listing_at(Instant::now());
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                Some(finished) = self.readers.join_next() => self.on_reader_exit(finished)?,
                Some(news) = self.resolver.next() => self.on_lineage_event(news)?,
                (number, listing) = shared.lister.wait_newer(seen) => {
                    seen = number;
                    self.on_listing(listing, None);
                }
                () = sleep_until(self.planned_at + MIN_PLAN_INTERVAL), if self.plan_is_due => {
                    self.start_readable_shards();
                }
                () = sleep_until(look_at.unwrap_or_else(Instant::now)), if look_at.is_some() => {
                    shared.lister.request();
                }
            }
        }
    }

    /// Waits for the readers to end, after they were told to stop.
    pub async fn drain(&mut self) {
        self.resolver.abort();
        while let Some(finished) = self.readers.join_next().await {
            // What a reader that panicked now had not settled is read again after the restart.
            let _ = self.on_reader_exit(finished);
        }
    }

    /// What the first listing shows has been there since `read_at`.
    fn on_listing(&mut self, listing: Arc<Listing>, read_at: Option<UnixSeconds>) {
        self.listing = listing.clone();
        let listing = &*listing;
        let begun_at = self.context.clock.at(listing.started);
        if read_at.is_none() && !self.check_downtime_gap(listing) {
            return;
        }
        self.positions.record_listing(begun_at);
        self.resolver.observe_listing(listing);
        let entries = self.positions.all();
        let listed_at = read_at.unwrap_or_else(|| self.context.clock.at(listing.ended));
        let mut forms = listing.streams.values().filter_map(|stream| stream.schema.as_ref());
        if let Some((_, keys)) = forms.next_back() {
            self.keys = keys.clone();
        }
        for id in self.graph.observe(listing, &entries, listed_at, Instant::now()) {
            self.positions.forget(&id);
        }
        self.start_readable_shards();
        let positions = &self.positions;
        let is_open = |id: &ShardId| listing.has(id) && !positions.is_finished(id);
        self.mark_started(|id| is_open(id) || positions.is_active(id));
    }

    /// Begins what may be read of each stream, and of a later one only once those before it are
    /// drained; what it has begun, it goes on with.
    fn start_readable_shards(&mut self) {
        let listing = &*self.listing.clone();
        let now = Instant::now();
        self.planned_at = now;
        self.plan_is_due = false;
        let mut current = None;
        let mut unfit = None;
        let mut waits_since = None;
        let mut shardless = None;
        for (label, stream) in &listing.streams {
            let entries = self.positions.of_stream(label);
            if stream.is_trimmed() && self.skipped_streams.contains(label) {
                continue;
            }
            if entries.is_empty() {
                unfit = problems::unsupported_view(&self.context.config.required_images, stream);
                let is_last = listing.newest().is_some_and(|(newest, _)| newest == label);
                if unfit.is_some() && !is_last {
                    // A stream keeps its images for life: what has others comes after it.
                    unfit = None;
                    if !self.skip_stream(label) {
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
            if stream.is_trimmed() && !self.check_vanished_stream(label, &entries) {
                return;
            }
            let plan = self.graph.plan(stream, &entries, trim_horizon(self.context.clock.now()));
            if stream.is_open && stream.is_empty() && plan.read.is_empty() {
                shardless = Some(label);
            }
            let since = plan.blocked.iter().map(|id| self.unread_since(id));
            waits_since = since.chain(waits_since).min();
            for (id, position) in plan.read {
                self.start_shard(id, position);
            }
            for id in plan.missing_parents {
                self.resolver.probe(id);
            }
            // Its last shards have been asked for children, in vain.
            let seems = plan.is_drained && !self.resolver.is_finding_children(label);
            let is_gone = stream.is_trimmed();
            if !self.drain_tracker.observe(label, seems, is_gone, listing.started, now)
                && current.is_none()
            {
                current = Some(label);
            }
        }
        self.positions.set_waits_since(waits_since);
        self.report_streams(listing, current, unfit, shardless);
    }

    /// Tells which stream is read, and what keeps changes from being read: that one lacks an image, has
    /// no shard, or has no more.
    fn report_streams(
        &mut self,
        listing: &Listing,
        current: Option<&StreamLabel>,
        unfit: Option<Problem>,
        shardless: Option<&StreamLabel>,
    ) {
        let ConsumerContext { config, health, .. } = &*self.context;
        let ConsumerConfig { source: follow, table, .. } = config;
        let ended = || stream_status::stream_end_problem(follow, table, listing, current.is_none());
        let shardless =
            || stream_status::no_shards_problem(table, shardless, &mut self.empty_stream);
        match unfit.or_else(ended).or_else(shardless) {
            Some(trouble) => health.set_problem(Component::StreamStatus, trouble),
            None => health.clear(&Component::StreamStatus),
        }
        let newest = listing.newest().map(|(label, _)| label);
        health.set_stream(current.or(newest));
    }

    /// The worker has started once every open shard has answered; those that are not to be waited
    /// for any more are left out.
    fn mark_started(&self, is_awaited: impl Fn(&ShardId) -> bool) {
        let mut unanswered = lock(&self.unread_shards);
        unanswered.retain(is_awaited);
        if unanswered.is_empty() {
            self.context.health.started();
        }
    }

    /// Begins to read a shard, unless somebody does.
    fn start_shard(&mut self, id: ShardId, position: Position) {
        if self.positions.is_active(&id) {
            return;
        }
        let begins_now = self.start.kind == StartKind::Latest
            && self.start.label() == id.stream.as_str()
            && position == Position::Start;
        let position = if begins_now { Position::Latest } else { position };
        let read_at = self.unread_since(&id);
        let from = self.iterator_start(&position);
        self.context.telemetry.shard_opened(&id, &from);
        let task = ShardTask {
            reader: ShardReader::new(self.streams.clone(), id.clone(), from),
            keys: self.keys.clone(),
            progress: self.positions.open(id.clone(), position, read_at),
        };
        let shared = self.context.clone();
        let unanswered = self.unread_shards.clone();
        self.readers.spawn(async move {
            let answered = || {
                let mut unanswered = lock(&unanswered);
                if unanswered.remove(&id) && unanswered.is_empty() {
                    shared.health.started();
                }
            };
            let end = shard_consumer::consume_shard(&shared, task, answered).await;
            (id, end)
        });
    }

    /// Where reading begins in a shard that is settled up to `position`.
    fn iterator_start(&self, position: &Position) -> IteratorStart {
        match (position, self.context.skip_before) {
            (Position::After(number), _) => IteratorStart::After(number.clone()),
            _ if fault!(ChildStartsAtLatest) => IteratorStart::At(self.context.clock.now()),
            // The moment reading began, never the service's LATEST: that is another moment at each
            // call. In a shard that was made later it is the start. One to come is refused; until
            // then all that comes is skipped.
            (_, Some(moment)) => {
                let now = self.context.clock.now();
                IteratorStart::At(moment.min(UnixSeconds(now.0.saturating_sub(1))))
            }
            (_, None) => IteratorStart::Start,
        }
    }

    fn on_reader_exit(
        &mut self,
        finished: Result<(ShardId, ShardExit), JoinError>,
    ) -> Result<(), Panicked> {
        match finished.map_err(|_| Panicked)? {
            (_, ShardExit::Stopped) => {}
            (id, ShardExit::Finished) => {
                self.context.telemetry.shard_finished(&id);
                self.positions.finish(&id);
                if self.context.stop.is_cancelled() || fault!(ChildrenNotRequested) {
                    return Ok(());
                }
                // What was listed already need not be asked for.
                let listing = self.listing.clone();
                let listed = listing.children(&id).iter();
                let parent = Some(id.clone());
                let listed = listed.map(|id| Shard { id: id.clone(), parent: parent.clone() });
                self.start_children(listed.collect());
                if listing.children(&id).is_empty() {
                    self.resolver.find_children(id);
                }
            }
        }
        Ok(())
    }

    /// Something was found out about a shard's family.
    fn on_lineage_event(&mut self, news: Result<LineageEvent, JoinError>) -> Result<(), Panicked> {
        match news.map_err(|_| Panicked)? {
            LineageEvent::Children(parent, children) => {
                if children.is_empty() && self.listing.children(&parent).is_empty() {
                    // It may be the last one, of a stream that has another after it.
                    self.context.lister.request();
                    if !self.resolver.is_finding_children(&parent.stream) {
                        self.start_readable_shards();
                    }
                }
                self.start_children(children);
            }
            LineageEvent::ParentTrimmed(id) => {
                if !self.check_unlisted_parent(&id) {
                    return Ok(());
                }
                self.graph.observe_trimmed(id);
                // Thousands may be asked for at once, and a plan looks at every shard.
                self.plan_is_due = true;
                if !self.resolver.is_probing() {
                    self.start_readable_shards();
                }
            }
            // Only a listing can tell what comes before it.
            LineageEvent::ParentFound(_) => self.context.lister.request(),
            LineageEvent::ParentNeverListed(id) if self.positions.has(&id) => {}
            LineageEvent::ParentNeverListed(id) => {
                match self.graph.missing_ancestor(&id, &self.positions.all()).cloned() {
                    None => self.start_shard(id, Position::Start),
                    Some(parent) if self.listing.has(&parent) || self.positions.has(&parent) => {}
                    Some(parent) => self.resolver.probe(parent),
                }
            }
        }
        Ok(())
    }

    /// Begins the children of a finished shard.
    fn start_children(&mut self, children: Vec<Shard>) {
        let now = self.context.clock.now();
        for Shard { id, parent } in children {
            self.graph.observe_shard(&id, parent.as_ref(), now);
            if !self.positions.has(&id) && !self.graph.is_pruned(&id) {
                self.start_shard(id, Position::Start);
                self.prune(parent);
            }
        }
    }

    /// Lets the entry of a finished parent go, if there are too many.
    fn prune(&mut self, parent: Option<ShardId>) {
        if let Some(parent) = parent.filter(|_| self.positions.len() > PRUNE_THRESHOLD)
            && self.positions.is_finished(&parent)
        {
            self.positions.forget(&parent);
            self.graph.observe_pruned(parent);
        }
    }
}

fn lock(unanswered: &Mutex<BTreeSet<ShardId>>) -> std::sync::MutexGuard<'_, BTreeSet<ShardId>> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}
