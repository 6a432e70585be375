//! Reads all shards of a stream side by side, each child after its parent.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::{JoinError, JoinSet};
use tokio::time::sleep;

use super::positions::Positions;
use super::shard::{self, End, Shared};
use super::sweep::{Listing, newest};
use crate::backoff::Backoff;
use crate::delivery::{Connections, Gateway};
use crate::record::{Position, ShardId, UnixSeconds};
use crate::stream::{From, ShardReader, Streams, plan};

/// How often children of finished shards are asked for in quick succession, before it is left to
/// the sweep: the last shard of a disabled stream never has any.
const CHILD_TRIES: u32 = 10;

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
            child_backoff: child_backoff(),
        }
    }

    /// Reads until told to stop.
    pub async fn run(&mut self) -> Result<(), Panicked> {
        let shared = self.shared.clone();
        let mut listings = shared.sweeper.subscribe();
        self.begin(&listings.borrow_and_update().clone());
        loop {
            let ask_again = self.child_wait();
            tokio::select! {
                biased;
                () = shared.stop.cancelled() => return Ok(()),
                Some(ended) = self.readers.join_next() => self.ended(ended)?,
                listing = newest(&mut listings) => self.listed(&listing),
                () = sleep(ask_again.unwrap_or_default()), if ask_again.is_some() => {
                    self.child_tries += 1;
                    shared.sweeper.ask();
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

    fn begin(&mut self, listing: &Listing) {
        let readable = self.readable(listing);
        *lock(&self.unanswered) = readable.keys().cloned().collect();
        if readable.is_empty() {
            self.shared.health.started();
        }
        self.open_all(readable, listing);
    }

    fn listed(&mut self, listing: &Listing) {
        self.open_all(self.readable(listing), listing);
        self.childless.retain(|id| !listing.has_child(id));
    }

    /// Shards that may be read and are not yet.
    fn readable(&self, listing: &Listing) -> BTreeMap<ShardId, Position> {
        let mut read = plan(&listing.shards, &self.positions.all()).read;
        read.retain(|id, _| !self.positions.is_read(id));
        read
    }

    fn open_all(&mut self, readable: BTreeMap<ShardId, Position>, listing: &Listing) {
        for (id, position) in readable {
            self.open(id, position);
        }
        // After the children have their entries: these are what makes a parent's superfluous.
        let plan = plan(&listing.shards, &self.positions.all());
        self.positions.forget(&plan.forget);
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
                self.child_backoff = child_backoff();
            }
        }
        Ok(())
    }

    /// How long until the children of a finished shard are asked for (again).
    fn child_wait(&mut self) -> Option<Duration> {
        let due = !self.childless.is_empty() && self.child_tries < CHILD_TRIES;
        match (due, self.child_tries) {
            (false, _) => None,
            (true, 0) => Some(Duration::ZERO),
            (true, _) => Some(self.child_backoff.next(&self.shared.random)),
        }
    }
}

/// Where reading begins in a shard that is settled up to `position`.
fn from(position: &Position, start: Option<UnixSeconds>) -> From {
    match (position, start) {
        (Position::After(number), _) => From::After(number.clone()),
        // The moment reading began, never the service's LATEST: that is another moment at each call.
        (Position::Latest, Some(start)) => From::At(start),
        (Position::Latest | Position::Start | Position::Finished, _) => From::Start,
    }
}

fn child_backoff() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_secs(1))
}

fn lock(unanswered: &Mutex<BTreeSet<ShardId>>) -> std::sync::MutexGuard<'_, BTreeSet<ShardId>> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}
