//! Progress of one shard, shared by its reader and the acknowledgements of its records.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::watermark::Watermark;
use crate::model::{Position, RecordProgress, SequenceNumber, UnixSeconds};

/// How far one shard is read and settled.
#[derive(Debug)]
pub struct ShardProgress {
    /// The position at which reading began.
    opened_at: Position,
    reads: Mutex<ReadTimes>,
    has_read_page: AtomicBool,
    watermark: Mutex<Watermark>,
    /// Notified when the watermark moves, so that the checkpoint is written.
    changed: Arc<Notify>,
    idle: Notify,
}

/// Times at which the shard was read, by the service's clock.
#[derive(Debug)]
struct ReadTimes {
    /// When the shard was last known to have no unread records. Used while there is no sequence number.
    caught_up_at: UnixSeconds,
    /// Records up to this time have been read, whether or not they are settled.
    through: UnixSeconds,
    /// The time of the first of the latest empty pages.
    quiet_since: Option<UnixSeconds>,
}

/// Pages must be empty for this long before the shard counts as caught up, because empty pages can come
/// before pages with records. This value plus a poll interval must be less than
/// `SAFETY_MARGIN_SECONDS`, so that each gap is reported only once.
const MIN_QUIET_SECONDS: i64 = 20;

impl ShardProgress {
    /// The progress of a shard that is read from `opened_at`, and was last read at `read_at`.
    pub fn new(opened_at: Position, read_at: UnixSeconds, changed: Arc<Notify>) -> Self {
        Self {
            opened_at,
            reads: Mutex::new(ReadTimes {
                caught_up_at: read_at,
                through: read_at,
                quiet_since: None,
            }),
            has_read_page: AtomicBool::new(false),
            watermark: Mutex::default(),
            changed,
            idle: Notify::new(),
        }
    }

    /// When the shard was last known to have no unread records. A sequence number is more exact.
    pub fn read_at(&self) -> UnixSeconds {
        self.reads().caught_up_at
    }

    /// Records a page that was read. `last` is the creation time of its last record, if it had one.
    pub fn record_page(&self, last: Option<UnixSeconds>, now: UnixSeconds) {
        self.has_read_page.store(true, Ordering::Relaxed);
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

    /// Records up to this time are read, settled or not.
    pub fn read_through(&self) -> UnixSeconds {
        self.reads().through
    }

    /// Whether a page was read.
    pub fn has_read_page(&self) -> bool {
        self.has_read_page.load(Ordering::Relaxed)
    }

    /// Marks everything up to this time as read, or as reported lost.
    pub fn mark_read_until(&self, then: UnixSeconds) {
        let mut reads = self.reads();
        reads.caught_up_at = reads.caught_up_at.max(then);
    }

    /// The settled position.
    pub fn position(&self) -> Position {
        match self.lock().settled() {
            Some(number) => Position::After(number.clone()),
            None => self.opened_at.clone(),
        }
    }

    /// Waits until every record that was read is settled.
    pub async fn wait_idle(&self) {
        loop {
            // Created before the condition is read, so that no notification is missed.
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
            self.changed.notify_one();
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
            self.changed.notify_one();
        }
        if idle && !fault!(DrainNotificationMissing) {
            self.idle.notify_waiters();
        }
    }
}
