//! Settles a record once all of its messages are acknowledged.
//!
//! Only an explicit acknowledgement settles a record. After a crash or a stop, handles are dropped
//! without one, so the record is read again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::delivery::dead_letter::payload::DropCounts;
use crate::delivery::dead_letter::sender::PendingDeadLetter;
use crate::model::{RecordProgress, SequenceNumber};
use crate::telemetry::DropReason;

/// A handle on a record in flight. The record settles when its last handle is acknowledged.
#[derive(Debug)]
pub struct AckHandle(Arc<AckState>);

struct AckState {
    /// Number of handles that are not acknowledged.
    pending: AtomicUsize,
    slot: u64,
    sequence_number: SequenceNumber,
    progress: Arc<dyn RecordProgress>,
    drops: Mutex<DropCounts>,
    /// Sent if any message of the record is dropped.
    dead_letter: Mutex<Option<PendingDeadLetter>>,
    /// Resources that the record holds until it settles, such as its share of the memory.
    _resources: Box<dyn std::any::Any + Send + Sync>,
}

impl std::fmt::Debug for AckState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {}", self.sequence_number)
    }
}

impl AckHandle {
    /// Returns the first handle of a record.
    ///
    /// Once all handles are acknowledged, `slot` is completed. If any message was dropped,
    /// `dead_letter` is sent before that.
    pub fn new(
        progress: Arc<dyn RecordProgress>,
        slot: u64,
        sequence_number: SequenceNumber,
        dead_letter: Option<PendingDeadLetter>,
        resources: impl Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(AckState {
            pending: AtomicUsize::new(1),
            slot,
            sequence_number,
            progress,
            drops: Mutex::default(),
            dead_letter: Mutex::new(dead_letter),
            _resources: Box::new(resources),
        }))
    }

    /// Returns another handle of the record.
    pub fn split(&self) -> Self {
        self.0.pending.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }

    /// Acknowledges this handle.
    pub fn ack(self) {
        if self.0.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.settle();
        }
    }

    /// Acknowledges this handle, and counts its message as dropped.
    pub fn ack_dropped(self, reason: DropReason) {
        let increment = u64::from(!fault!(DeadLetterCountsOneDropPerReason));
        lock(&self.0.drops).entry(reason).and_modify(|count| *count += increment).or_insert(1);
        self.ack();
    }

    pub fn sequence_number(&self) -> &SequenceNumber {
        &self.0.sequence_number
    }
}

impl AckState {
    fn settle(self: Arc<Self>) {
        let dead_letter = lock(&self.dead_letter).take();
        let drops = std::mem::take(&mut *lock(&self.drops));
        if fault!(RecordSettledBeforeDeadLetter) {
            self.progress.complete(self.slot);
        }
        match dead_letter.filter(|_| !drops.is_empty()) {
            Some(dead_letter) => dead_letter.send(drops, move || self.progress.complete(self.slot)),
            None => self.progress.complete(self.slot),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct CompletedSlots(Mutex<Vec<u64>>);

    impl RecordProgress for CompletedSlots {
        fn skip(&self, _: SequenceNumber) {}

        fn track(&self, _: SequenceNumber) -> u64 {
            0
        }

        fn complete(&self, slot: u64) {
            self.0.lock().unwrap().push(slot);
        }
    }

    fn handle(completed: &Arc<CompletedSlots>) -> AckHandle {
        AckHandle::new(completed.clone(), 7, SequenceNumber::parse("1").unwrap(), None, ())
    }

    #[test]
    fn completes_the_slot_with_the_last_acknowledgement() {
        let completed = Arc::new(CompletedSlots::default());
        let ack = handle(&completed);
        let others = [ack.split(), ack.split()];
        ack.ack();
        for other in others {
            assert!(completed.0.lock().unwrap().is_empty());
            other.ack_dropped(DropReason::Expired);
        }
        assert_eq!(*completed.0.lock().unwrap(), [7]);
    }

    #[test]
    fn keeps_the_slot_open_after_a_handle_is_dropped_without_acknowledgement() {
        let completed = Arc::new(CompletedSlots::default());
        let ack = handle(&completed);
        drop(ack.split());
        ack.ack();
        assert!(completed.0.lock().unwrap().is_empty());
    }
}
