//! Reads all shards of a stream side by side, each child after its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep_until};

use super::positions::Positions;
use super::shard::{self, End, Shared};
use super::sweep::{Listing, newest};
use crate::backoff::Backoff;
use crate::delivery::{Connections, Gateway};
use crate::record::{Position, ShardId, UnixSeconds};
use crate::stream::{ReadFrom, ShardReader, Streams, learn, plan};

/// How often children of finished shards are asked for in quick succession, before it is left to
/// the sweep: the last shard of a disabled stream never has any.
const CHILD_TRIES: u32 = 10;

/// After so long a shard that is not listed is gone, not just missing from listings that are behind.
const ABSENCE: Duration = Duration::from_secs(3600);

/// A reader panicked: a fault of ours.
#[derive(Debug)]
pub struct Panicked;

/// The readers of a stream.
#[derive(Debug)]
pub struct Reading<S, C, G> {
    streams: Arc<S>,
    shared: Arc<Shared<C, G>>,
    positions: Arc<Positions>,
    readers: JoinSet<(ShardId, End)>,
    /// Shards open at the start that have not answered yet.
    unanswered: Arc<Mutex<BTreeSet<ShardId>>>,
    /// Finished shards whose children are not listed yet.
    childless: BTreeSet<ShardId>,
    child_tries: u32,
    child_backoff: Backoff,
    /// When they are asked for.
    ask_at: Option<Instant>,
    /// Finished shards that are not listed, and since when.
    absent: BTreeMap<ShardId, Instant>,
    /// Every parent that any listing has shown.
    parents: BTreeMap<ShardId, ShardId>,
}

impl<S: Streams, C: Connections, G: Gateway> Reading<S, C, G> {
    /// No reader yet.
    pub fn new(streams: Arc<S>, shared: Arc<Shared<C, G>>, positions: Arc<Positions>) -> Self {
        Self {
            streams,
            shared,
            positions,
            readers: JoinSet::new(),
            unanswered: Arc::default(),
            childless: BTreeSet::new(),
            child_tries: 0,
            child_backoff: Backoff::new(Duration::from_millis(50), Duration::from_secs(1)),
            ask_at: None,
            absent: BTreeMap::new(),
            parents: BTreeMap::new(),
        }
    }

    /// Reads until told to stop.
    pub async fn run(&mut self) -> Result<(), Panicked> {
        let shared = self.shared.clone();
        let mut listings = shared.sweeper.subscribe();
        let first = listings.borrow_and_update().clone();
        let (finished, open): (Vec<_>, Vec<_>) =
            first.leaves().cloned().partition(|id| self.positions.is_finished(id));
        *lock(&self.unanswered) = open.into_iter().collect();
        // Their children may not be listed yet.
        self.childless.extend(finished);
        self.listed(&first);
        loop {
            let ask_at = self.ask_at;
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                Some(ended) = self.readers.join_next() => self.ended(ended)?,
                listing = newest(&mut listings) => self.listed(&listing),
                () = sleep_until(ask_at.unwrap_or_else(Instant::now)), if ask_at.is_some() => {
                    shared.sweeper.ask();
                    self.ask_at = None;
                }
            }
        }
    }

    /// Waits for the readers to end, after they were told to stop.
    pub async fn wait(&mut self) {
        while let Some(ended) = self.readers.join_next().await {
            // What a reader that panicked now had not settled is read again after the restart.
            let _ = self.ended(ended);
        }
    }

    fn listed(&mut self, listing: &Listing) {
        learn(&mut self.parents, &listing.shards);
        let plan = plan(&listing.shards, &self.parents, &self.positions.all());
        for (id, position) in plan.read {
            if !self.positions.is_read(&id) {
                self.open(id, position);
            }
        }
        self.forget(plan.unlisted);
        let positions = &self.positions;
        self.childless.retain(|id| !listing.children(id).any(|child| positions.has(child)));
        self.ask_for_children();
        let is_open = |id: &ShardId| listing.has(id) && !self.positions.is_finished(id);
        self.answered(|id| is_open(id) || self.positions.is_read(id));
    }

    /// Forgets finished shards that have not been listed for long.
    fn forget(&mut self, unlisted: BTreeSet<ShardId>) {
        let now = Instant::now();
        self.absent.retain(|id, _| unlisted.contains(id));
        for id in unlisted {
            self.absent.entry(id).or_insert(now);
        }
        let gone: Vec<_> =
            self.absent.extract_if(.., |_, since| now.duration_since(*since) >= ABSENCE).collect();
        for (id, _) in gone {
            self.positions.forget(&id);
            self.parents.remove(&id);
        }
    }

    /// Asks for another listing, a little later each time, while a finished shard has no child.
    fn ask_for_children(&mut self) {
        let asks = !self.childless.is_empty() && self.child_tries < CHILD_TRIES;
        self.ask_at = asks.then(|| {
            self.child_tries += 1;
            Instant::now() + self.child_backoff.next(&self.shared.random)
        });
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

    fn open(&mut self, id: ShardId, position: Position) {
        let start = self.shared.not_before;
        let from = from(&position, start);
        self.shared.telemetry.shard_opened(&id, &from);
        let progress = self.positions.open(id.clone(), position);
        let reader = ShardReader::new(self.streams.clone(), id.clone(), from);
        let shared = self.shared.clone();
        let unanswered = self.unanswered.clone();
        let read = async move {
            let answered = || {
                let mut unanswered = lock(&unanswered);
                if unanswered.remove(&id) && unanswered.is_empty() {
                    shared.health.started();
                }
            };
            let end = shard::read(&shared, reader, &progress, answered).await;
            (id, end)
        };
        self.readers.spawn(read);
    }

    fn ended(&mut self, ended: Result<(ShardId, End), JoinError>) -> Result<(), Panicked> {
        match ended.map_err(|_| Panicked)? {
            (_, End::Stopped) => {}
            (id, End::Finished) => {
                self.shared.telemetry.shard_finished(&id);
                self.positions.finish(&id);
                self.childless.insert(id);
                self.child_tries = 0;
                self.child_backoff.reset();
                self.ask_at = Some(Instant::now());
            }
        }
        Ok(())
    }
}

/// Where reading begins in a shard that is settled up to `position`.
fn from(position: &Position, start: Option<UnixSeconds>) -> ReadFrom {
    match (position, start) {
        (Position::After(number), _) => ReadFrom::After(number.clone()),
        // The moment reading began, never the service's LATEST: that is another moment at each call.
        (Position::Latest, Some(start)) => ReadFrom::At(start),
        (Position::Latest | Position::Start | Position::Finished, _) => ReadFrom::Start,
    }
}

fn lock(unanswered: &Mutex<BTreeSet<ShardId>>) -> std::sync::MutexGuard<'_, BTreeSet<ShardId>> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}
