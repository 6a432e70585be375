//! Starts one task for each shard that can be read, and observes listings and finished shards.
//!
//! Shards are read in parallel. A child begins after its parent is finished, and a stream after all
//! earlier streams are drained.

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

/// While parents are probed, plans are at least this far apart.
const MIN_PLAN_INTERVAL: Duration = Duration::from_secs(1);

/// A task of the consumer panicked, which is a bug in the operator.
#[derive(Debug)]
pub struct Panicked;

/// Coordinates the tasks that read the shards of one notifier.
#[derive(Debug)]
pub struct ShardCoordinator {
    streams: Arc<RateLimitedStreams>,
    context: Arc<ConsumerContext>,
    positions: Arc<Positions>,
    /// Start position and start time, from the checkpoint.
    start: StartPoint,
    /// Older records were not requested, or their loss is already reported.
    requested_since: UnixSeconds,
    /// The newest listing that the graph observed. A plan must not use another one, because a child
    /// whose parent the graph does not know counts as a shard without a parent.
    listing: Arc<Listing>,
    graph: ShardGraph,
    drain_tracker: DrainTracker,
    readers: JoinSet<(ShardId, ShardExit)>,
    /// Shards that were open at the start and have not been read yet.
    unread_shards: Arc<Mutex<BTreeSet<ShardId>>>,
    resolver: LineageResolver,
    /// Streams whose records lack an image that the spec needs.
    skipped_streams: BTreeSet<StreamLabel>,
    /// How long an open stream has had no shard.
    empty_stream: FailureTracker,
    /// Key attributes of the table, which never change.
    keys: KeySchema,
    planned_at: Instant,
    is_plan_due: bool,
}

impl ShardCoordinator {
    /// Creates a coordinator, which starts no task until it runs.
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
            is_plan_due: false,
            context,
        }
    }

    /// Reads until the consumer stops. Shards of the first listing can have had records since
    /// `read_at`.
    pub async fn run(&mut self, read_at: UnixSeconds) -> Result<(), Panicked> {
        let context = self.context.clone();
        let (mut observed, first) = context.lister.latest_numbered();
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
            let list_at = self.drain_tracker.next_listing_at(Instant::now());
            tokio::select! {
                biased;
                () = context.stop.cancelled() => return Ok(()),
                Some(exit) = self.readers.join_next() => self.on_reader_exit(exit)?,
                Some(event) = self.resolver.next_event() => self.on_lineage_event(event)?,
                (number, listing) = context.lister.wait_newer(observed) => {
                    observed = number;
                    self.on_listing(listing, None);
                }
                () = sleep_until(self.planned_at + MIN_PLAN_INTERVAL), if self.is_plan_due => {
                    self.start_readable_shards();
                }
                () = sleep_until(list_at.unwrap_or_else(Instant::now)), if list_at.is_some() => {
                    context.lister.request();
                }
            }
        }
    }

    /// Waits until all tasks have ended. Call it after the stop token was cancelled.
    pub async fn drain(&mut self) {
        self.resolver.abort();
        while let Some(exit) = self.readers.join_next().await {
            // If a task panics now, its unsettled records are read again after the restart.
            let _ = self.on_reader_exit(exit);
        }
    }

    /// Observes a listing, and starts shards. `read_at` is given for the first listing: its shards
    /// can have had records since then.
    fn on_listing(&mut self, listing: Arc<Listing>, read_at: Option<UnixSeconds>) {
        self.listing = listing.clone();
        let listing = &*listing;
        let started_at = self.context.clock.at(listing.started);
        if read_at.is_none() && !self.check_downtime_gap(listing) {
            return;
        }
        self.positions.record_listing(started_at);
        self.resolver.observe_listing(listing);
        let entries = self.positions.all();
        let listed_at = read_at.unwrap_or_else(|| self.context.clock.at(listing.ended));
        let mut schemas = listing.streams.values().filter_map(|stream| stream.schema.as_ref());
        if let Some((_, keys)) = schemas.next_back() {
            self.keys = keys.clone();
        }
        for id in self.graph.observe(listing, &entries, listed_at, Instant::now()) {
            self.positions.forget(&id);
        }
        self.start_readable_shards();
        let positions = &self.positions;
        let is_open = |id: &ShardId| listing.has(id) && !positions.is_finished(id);
        self.retain_unread_shards(|id| is_open(id) || positions.is_active(id));
    }

    /// Starts the shards of each stream that can be read. New shards of a stream begin only once
    /// all earlier streams are drained. A stream that has already begun continues.
    fn start_readable_shards(&mut self) {
        let listing = &*self.listing.clone();
        let now = Instant::now();
        self.planned_at = now;
        self.is_plan_due = false;
        let mut current = None;
        let mut unsupported = None;
        let mut waits_since = None;
        let mut empty = None;
        for (label, stream) in &listing.streams {
            let entries = self.positions.of_stream(label);
            if stream.is_deleted() && self.skipped_streams.contains(label) {
                continue;
            }
            if entries.is_empty() {
                let required = &self.context.config.required_images;
                unsupported = problems::unsupported_view(required, stream);
                let is_newest = listing.newest().is_some_and(|(newest, _)| newest == label);
                if unsupported.is_some() && !is_newest {
                    // A stream never changes its images. Only a later stream can have others.
                    unsupported = None;
                    if !self.skip_stream(label) {
                        return;
                    }
                    continue;
                }
                if current.is_some() && !fault!(NextStreamStartsEarly) || unsupported.is_some() {
                    let since = stream.shards().map(|(id, _)| self.unread_since(id));
                    waits_since = since.chain(waits_since).min();
                    continue;
                }
            }
            if stream.is_deleted() && !self.check_vanished_stream(label, &entries) {
                return;
            }
            let plan = self.graph.plan(stream, &entries, trim_horizon(self.context.clock.now()));
            if stream.is_open && stream.is_empty() && plan.read.is_empty() {
                empty = Some(label);
            }
            let since = plan.blocked.iter().map(|id| self.unread_since(id));
            waits_since = since.chain(waits_since).min();
            for (id, position) in plan.read {
                self.start_shard(id, position);
            }
            for id in plan.missing_parents {
                self.resolver.probe(id);
            }
            // The polls for children of its last shards must have found none.
            let seems_drained = plan.is_drained && !self.resolver.is_finding_children(label);
            let is_deleted = stream.is_deleted();
            let started = listing.started;
            if !self.drain_tracker.observe(label, seems_drained, is_deleted, started, now)
                && current.is_none()
            {
                current = Some(label);
            }
        }
        self.positions.set_waits_since(waits_since);
        self.report_streams(listing, current, unsupported, empty);
    }

    /// Reports the stream that is read, and the problem that prevents further records. The problem
    /// is a missing image, the end of the stream, or a stream without shards.
    fn report_streams(
        &mut self,
        listing: &Listing,
        current: Option<&StreamLabel>,
        unsupported: Option<Problem>,
        empty: Option<&StreamLabel>,
    ) {
        let ConsumerContext { config, health, .. } = &*self.context;
        let ConsumerConfig { source, table, .. } = config;
        let ended = || stream_status::stream_end_problem(source, table, listing, current.is_none());
        let no_shards = || stream_status::no_shards_problem(table, empty, &mut self.empty_stream);
        match unsupported.or_else(ended).or_else(no_shards) {
            Some(problem) => health.set_problem(Component::StreamStatus, problem),
            None => health.clear(&Component::StreamStatus),
        }
        let newest = listing.newest().map(|(label, _)| label);
        health.set_stream(current.or(newest));
    }

    /// Stops waiting for the first page of shards that are no longer awaited. Once every awaited
    /// shard has been read, the notifier counts as started.
    fn retain_unread_shards(&self, is_awaited: impl Fn(&ShardId) -> bool) {
        let mut unread = lock(&self.unread_shards);
        unread.retain(is_awaited);
        if unread.is_empty() {
            self.context.health.mark_reading();
        }
    }

    /// Starts the task of a shard, unless it is already running.
    fn start_shard(&mut self, id: ShardId, position: Position) {
        if self.positions.is_active(&id) {
            return;
        }
        let is_latest = self.start.kind == StartKind::Latest
            && self.start.label() == id.stream.as_str()
            && position == Position::TrimHorizon;
        let position = if is_latest { Position::Latest } else { position };
        let read_at = self.unread_since(&id);
        let start = self.iterator_start(&position);
        self.context.telemetry.shard_opened(&id, &start);
        let task = ShardTask {
            reader: ShardReader::new(self.streams.clone(), id.clone(), start),
            keys: self.keys.clone(),
            progress: self.positions.open(id.clone(), position, read_at),
        };
        let context = self.context.clone();
        let unread = self.unread_shards.clone();
        self.readers.spawn(async move {
            let on_first_response = || {
                let mut unread = lock(&unread);
                if unread.remove(&id) && unread.is_empty() {
                    context.health.mark_reading();
                }
            };
            let exit = shard_consumer::consume_shard(&context, task, on_first_response).await;
            (id, exit)
        });
    }

    /// Start of the first iterator of a shard that is settled up to `position`.
    fn iterator_start(&self, position: &Position) -> IteratorStart {
        match (position, self.context.skip_before) {
            (Position::After(number), _) => IteratorStart::After(number.clone()),
            _ if fault!(ChildStartsAtLatest) => IteratorStart::At(self.context.clock.now()),
            // Uses the start time, never the service's LATEST, which is another time in each
            // request. In a shard that was created later, the start time means the first record.
            // The service rejects a future time, so the reader begins now, and records are skipped
            // until then.
            (_, Some(start)) => {
                let now = self.context.clock.now();
                IteratorStart::At(start.min(UnixSeconds(now.0.saturating_sub(1))))
            }
            (_, None) => IteratorStart::TrimHorizon,
        }
    }

    fn on_reader_exit(
        &mut self,
        exit: Result<(ShardId, ShardExit), JoinError>,
    ) -> Result<(), Panicked> {
        match exit.map_err(|_| Panicked)? {
            (_, ShardExit::Stopped) => {}
            (id, ShardExit::Finished) => {
                self.context.telemetry.shard_finished(&id);
                self.positions.finish(&id);
                if self.context.stop.is_cancelled() || fault!(ChildrenNotRequested) {
                    return Ok(());
                }
                // Children that are already listed need no request.
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

    fn on_lineage_event(&mut self, event: Result<LineageEvent, JoinError>) -> Result<(), Panicked> {
        match event.map_err(|_| Panicked)? {
            LineageEvent::Children(parent, children) => {
                if children.is_empty() && self.listing.children(&parent).is_empty() {
                    // The shard can be the last one of a stream that has a successor.
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
                // Thousands of parents can be probed at once, and a plan visits every shard. Plans
                // are therefore spaced out until the last probe has ended.
                self.is_plan_due = true;
                if !self.resolver.is_probing() {
                    self.start_readable_shards();
                }
            }
            // Only a listing shows the ancestors of the parent.
            LineageEvent::ParentFound(_) => self.context.lister.request(),
            LineageEvent::ParentStillUnlisted(id) if self.positions.has(&id) => {}
            LineageEvent::ParentStillUnlisted(id) => {
                match self.graph.awaited_parent(&id, &self.positions.all()).cloned() {
                    None => self.start_shard(id, Position::TrimHorizon),
                    Some(parent) if self.listing.has(&parent) || self.positions.has(&parent) => {}
                    Some(parent) => self.resolver.probe(parent),
                }
            }
        }
        Ok(())
    }

    /// Starts the children of a finished shard.
    fn start_children(&mut self, children: Vec<Shard>) {
        let now = self.context.clock.now();
        for Shard { id, parent } in children {
            self.graph.observe_shard(&id, parent.as_ref(), now);
            if !self.positions.has(&id) && !self.graph.is_pruned(&id) {
                self.start_shard(id, Position::TrimHorizon);
                self.prune(parent);
            }
        }
    }

    /// Removes the entry of a finished parent if there are too many entries.
    fn prune(&mut self, parent: Option<ShardId>) {
        if let Some(parent) = parent.filter(|_| self.positions.count() > PRUNE_THRESHOLD)
            && self.positions.is_finished(&parent)
        {
            self.positions.forget(&parent);
            self.graph.observe_pruned(parent);
        }
    }
}

fn lock(unread: &Mutex<BTreeSet<ShardId>>) -> std::sync::MutexGuard<'_, BTreeSet<ShardId>> {
    unread.lock().unwrap_or_else(PoisonError::into_inner)
}
