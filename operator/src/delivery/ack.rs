//! Settles a record once all of its messages are settled. Only saying so settles: a ticket that is
//! merely dropped, as in a crash or a stop, leaves its record to be read again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::delivery::dead_letter::payload::Losses;
use crate::delivery::dead_letter::sender::Letter;
use crate::model::{RecordProgress, SequenceNumber};
use crate::telemetry::Dropped;

/// A share in a record that is at work.
#[derive(Debug)]
pub struct Ticket(Arc<Shared>);

struct Shared {
    open: AtomicUsize,
    slot: u64,
    number: SequenceNumber,
    progress: Arc<dyn RecordProgress>,
    losses: Mutex<Losses>,
    /// What is sent to a dead-letter queue if anything of the record is lost.
    letter: Mutex<Option<Letter>>,
    /// What the record holds on to while it is at work, such as its share of the memory.
    _held: Box<dyn std::any::Any + Send + Sync>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {}", self.number)
    }
}

impl Ticket {
    /// The ticket of a record. It completes `slot` once this and all shares are settled, and `letter`
    /// has been sent if any was lost.
    pub fn new(
        progress: Arc<dyn RecordProgress>,
        slot: u64,
        number: SequenceNumber,
        letter: Option<Letter>,
        held: impl Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            open: AtomicUsize::new(1),
            slot,
            number,
            progress,
            losses: Mutex::default(),
            letter: Mutex::new(letter),
            _held: Box::new(held),
        }))
    }

    /// Another share in the record.
    pub fn share(&self) -> Self {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }

    /// Settles this share.
    pub fn settle(self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.end();
        }
    }

    /// Settles this share, whose message was given up.
    pub fn lose(self, why: Dropped) {
        let increment = u64::from(!fault!(DeadLetterCountsOneDropPerReason));
        lock(&self.0.losses).entry(why).and_modify(|count| *count += increment).or_insert(1);
        self.settle();
    }

    /// The record's sequence number.
    pub fn number(&self) -> &SequenceNumber {
        &self.0.number
    }
}

impl Shared {
    /// The last share is settled.
    fn end(self: Arc<Self>) {
        let letter = lock(&self.letter).take();
        let losses = std::mem::take(&mut *lock(&self.losses));
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

    fn ticket(completed: &Arc<Completed>) -> Ticket {
        Ticket::new(completed.clone(), 7, SequenceNumber::parse("1").unwrap(), None, ())
    }

    #[test]
    fn a_record_is_settled_with_its_last_share() {
        let completed = Arc::new(Completed::default());
        let ticket = ticket(&completed);
        let shares = [ticket.share(), ticket.share()];
        ticket.settle();
        for share in shares {
            assert!(completed.0.lock().unwrap().is_empty());
            share.lose(Dropped::Expired);
        }
        assert_eq!(*completed.0.lock().unwrap(), [7]);
    }

    #[test]
    fn a_share_that_is_dropped_settles_nothing() {
        let completed = Arc::new(Completed::default());
        let ticket = ticket(&completed);
        drop(ticket.share());
        ticket.settle();
        assert!(completed.0.lock().unwrap().is_empty());
    }
}
