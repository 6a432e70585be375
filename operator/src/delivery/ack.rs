//! Settles a record once all of its messages are settled. Only saying so settles: a ticket that is
//! merely dropped, as in a crash or a stop, leaves its record to be read again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::delivery::dead_letter::payload::DropCounts;
use crate::delivery::dead_letter::sender::PendingDeadLetter;
use crate::model::{RecordProgress, SequenceNumber};
use crate::telemetry::DropReason;

/// A share in a record that is at work.
#[derive(Debug)]
pub struct AckHandle(Arc<AckState>);

struct AckState {
    open: AtomicUsize,
    slot: u64,
    sequence_number: SequenceNumber,
    progress: Arc<dyn RecordProgress>,
    drops: Mutex<DropCounts>,
    /// What is sent to a dead-letter queue if anything of the record is lost.
    dead_letter: Mutex<Option<PendingDeadLetter>>,
    /// What the record holds on to while it is at work, such as its share of the memory.
    _held: Box<dyn std::any::Any + Send + Sync>,
}

impl std::fmt::Debug for AckState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {}", self.sequence_number)
    }
}

impl AckHandle {
    /// The ticket of a record. It completes `slot` once this and all shares are settled, and `letter`
    /// has been sent if any was lost.
    pub fn new(
        progress: Arc<dyn RecordProgress>,
        slot: u64,
        number: SequenceNumber,
        letter: Option<PendingDeadLetter>,
        held: impl Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(AckState {
            open: AtomicUsize::new(1),
            slot,
            sequence_number: number,
            progress,
            drops: Mutex::default(),
            dead_letter: Mutex::new(letter),
            _held: Box::new(held),
        }))
    }

    /// Another share in the record.
    pub fn split(&self) -> Self {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }

    /// Settles this share.
    pub fn ack(self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.finish();
        }
    }

    /// Settles this share, whose message was given up.
    pub fn ack_dropped(self, why: DropReason) {
        let increment = u64::from(!fault!(DeadLetterCountsOneDropPerReason));
        lock(&self.0.drops).entry(why).and_modify(|count| *count += increment).or_insert(1);
        self.ack();
    }

    /// The record's sequence number.
    pub fn sequence_number(&self) -> &SequenceNumber {
        &self.0.sequence_number
    }
}

impl AckState {
    /// The last share is settled.
    fn finish(self: Arc<Self>) {
        let letter = lock(&self.dead_letter).take();
        let losses = std::mem::take(&mut *lock(&self.drops));
        if fault!(RecordSettledBeforeDeadLetter) {
            self.progress.complete(self.slot);
        }
        match letter.filter(|_| !losses.is_empty()) {
            Some(letter) => letter.send(losses, move || self.progress.complete(self.slot)),
            None => self.progress.complete(self.slot),
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default)]
    struct Completed(Mutex<Vec<u64>>);

    impl RecordProgress for Completed {
        fn skip(&self, _: SequenceNumber) {}

        fn track(&self, _: SequenceNumber) -> u64 {
            0
        }

        fn complete(&self, slot: u64) {
            self.0.lock().unwrap().push(slot);
        }
    }

    fn ticket(completed: &Arc<Completed>) -> AckHandle {
        AckHandle::new(completed.clone(), 7, SequenceNumber::parse("1").unwrap(), None, ())
    }

    #[test]
    fn a_record_is_settled_with_its_last_share() {
        let completed = Arc::new(Completed::default());
        let ticket = ticket(&completed);
        let shares = [ticket.split(), ticket.split()];
        ticket.ack();
        for share in shares {
            assert!(completed.0.lock().unwrap().is_empty());
            share.ack_dropped(DropReason::Expired);
        }
        assert_eq!(*completed.0.lock().unwrap(), [7]);
    }

    #[test]
    fn a_share_that_is_dropped_settles_nothing() {
        let completed = Arc::new(Completed::default());
        let ticket = ticket(&completed);
        drop(ticket.split());
        ticket.ack();
        assert!(completed.0.lock().unwrap().is_empty());
    }
}
