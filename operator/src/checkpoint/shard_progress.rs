//! How far one shard is settled, shared by its reader and the tickets of its records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::watermark::Watermark;
use crate::model::{Position, RecordProgress, SequenceNumber, UnixSeconds};

/// One shard's progress.
#[derive(Debug)]
pub struct ShardProgress {
    opened_at: Position,
    reads: Mutex<ReadTimes>,
    has_answered: AtomicBool,
    watermark: Mutex<Watermark>,
    /// Told whenever the watermark moves: there is something to remember.
    moved: Arc<Notify>,
    idle: Notify,
}

/// When the shard was read.
#[derive(Debug)]
struct ReadTimes {
    /// When it was last known that nothing waits to be read; counts while there is no number.
    caught_up_at: UnixSeconds,
    /// Up to when changes are read, settled or not.
    through: UnixSeconds,
    /// Since when pages have had no records.
    quiet_since: Option<UnixSeconds>,
}

/// Pages without records come before some that have them, too; so long, and nothing is left to read.
/// With a poll interval it is shorter than what counts as lost in advance, so that a gap is told once.
const MIN_QUIET_SECONDS: i64 = 20;

impl ShardProgress {
    /// The progress of a shard that is read from `opened_at`, and before was read at `read_at`.
    pub fn new(opened_at: Position, read_at: UnixSeconds, moved: Arc<Notify>) -> Self {
        Self {
            opened_at,
            reads: Mutex::new(ReadTimes {
                caught_up_at: read_at,
                through: read_at,
                quiet_since: None,
            }),
            has_answered: AtomicBool::new(false),
            watermark: Mutex::default(),
            moved,
            idle: Notify::new(),
        }
    }

    /// When it was last known that nothing waits to be read, unless the position says more exactly.
    pub fn read_at(&self) -> UnixSeconds {
        self.reads().caught_up_at
    }

    /// A page was read; its last record was made then, if it had any.
    pub fn record_page(&self, last: Option<UnixSeconds>, now: UnixSeconds) {
        self.has_answered.store(true, Ordering::Relaxed);
        let is_idle = self.lock().is_idle();
        let mut reads = self.reads();
        reads.through = last.unwrap_or(now);
        if last.is_some() {
            reads.quiet_since = None;
            return;
        }
        let quiet_since = *reads.quiet_since.get_or_insert(now);
        if is_idle && now.0.saturating_sub(quiet_since.0) >= MIN_QUIET_SECONDS {
            reads.caught_up_at = now;
        }
    }

    /// Up to when changes are read, settled or not.
    pub fn read_through(&self) -> UnixSeconds {
        self.reads().through
    }

    /// Whether a page was read.
    pub fn has_read_page(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// What there was until then was read, or told to be lost.
    pub fn mark_read_until(&self, then: UnixSeconds) {
        let mut reads = self.reads();
        reads.caught_up_at = reads.caught_up_at.max(then);
    }

    /// How far the shard is settled.
    pub fn position(&self) -> Position {
        match self.lock().settled() {
            Some(number) => Position::After(number.clone()),
            None => self.opened_at.clone(),
        }
    }

    /// Waits until everything read is settled.
    pub async fn wait_idle(&self) {
        loop {
            // Asked for before looking, so that what happens in between is not missed.
            let idle = self.idle.notified();
            if self.lock().is_idle() || fault!(ShardFinishedBeforeDelivery) {
                return;
            }
            idle.await;
        }
    }

    fn reads(&self) -> std::sync::MutexGuard<'_, ReadTimes> {
        self.reads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Watermark> {
        self.watermark.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RecordProgress for ShardProgress {
    fn skip(&self, number: SequenceNumber) {
        let idle = {
            let mut watermark = self.lock();
            watermark.skip(number);
            watermark.is_idle()
        };
        if idle {
            self.moved.notify_one();
        }
    }

    fn track(&self, number: SequenceNumber) -> u64 {
        self.lock().track(number)
    }

    fn complete(&self, slot: u64) {
        let (moved, idle) = {
            let mut watermark = self.lock();
            (watermark.complete(slot), watermark.is_idle())
        };
        if moved {
            self.moved.notify_one();
        }
        if idle && !fault!(DrainNotificationMissing) {
            self.idle.notify_waiters();
        }
    }
}
