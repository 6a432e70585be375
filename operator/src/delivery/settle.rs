//! Settles a record once all of its messages are settled. Only saying so settles: a ticket that is
//! merely dropped, as in a crash or a stop, leaves its record to be read again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::dead_letters::Letter;
use super::letter::Losses;
use crate::record::SequenceNumber;
use crate::telemetry::Dropped;

/// Told when a record is settled.
pub trait Settled: Send + Sync + 'static {
    /// The record with this mark is settled.
    fn settled(&self, mark: u64);
}

/// A share in a record that is at work.
#[derive(Debug)]
pub struct Ticket(Arc<Shared>);

struct Shared {
    open: AtomicUsize,
    mark: u64,
    number: SequenceNumber,
    settled: Arc<dyn Settled>,
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
    /// The ticket of a record; `settled` hears of `mark` once this and all shares are settled, and
    /// `letter` has been sent if any was lost.
    pub fn new(
        settled: Arc<dyn Settled>,
        mark: u64,
        number: SequenceNumber,
        letter: Option<Letter>,
        held: impl Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Shared {
            open: AtomicUsize::new(1),
            mark,
            number,
            settled,
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
        *lock(&self.0.losses).entry(why).or_default() += 1;
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
        match letter.filter(|_| !losses.is_empty()) {
            Some(letter) => letter.send(losses, move || self.settled.settled(self.mark)),
            None => self.settled.settled(self.mark),
        }
    }
}

fn lock<T>(what: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<u64>>);

    impl Settled for Heard {
        fn settled(&self, mark: u64) {
            self.0.lock().unwrap().push(mark);
        }
    }

    fn ticket(heard: &Arc<Heard>) -> Ticket {
        Ticket::new(heard.clone(), 7, SequenceNumber::parse("1").unwrap(), None, ())
    }

    #[test]
    fn a_record_is_settled_with_its_last_share() {
        let heard = Arc::new(Heard::default());
        let ticket = ticket(&heard);
        let shares = [ticket.share(), ticket.share()];
        ticket.settle();
        for share in shares {
            assert!(heard.0.lock().unwrap().is_empty());
            share.lose(Dropped::Expired);
        }
        assert_eq!(*heard.0.lock().unwrap(), [7]);
    }

    #[test]
    fn a_share_that_is_dropped_settles_nothing() {
        let heard = Arc::new(Heard::default());
        let ticket = ticket(&heard);
        drop(ticket.share());
        ticket.settle();
        assert!(heard.0.lock().unwrap().is_empty());
    }
}
