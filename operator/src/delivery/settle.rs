//! Settles a record once all of its messages are settled. Only saying so settles: a ticket that is
//! merely dropped, as in a crash or a stop, leaves its record to be read again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::record::SequenceNumber;

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
    /// What the record holds on to while it is at work, such as its share of the memory.
    _held: Box<dyn std::any::Any + Send + Sync>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "record {}", self.number)
    }
}

impl Ticket {
    /// The ticket of a record; `settled` hears of `mark` once this and all shares are settled.
    pub fn new(
        settled: Arc<dyn Settled>,
        mark: u64,
        number: SequenceNumber,
        held: impl Send + Sync + 'static,
    ) -> Self {
        let open = AtomicUsize::new(1);
        Self(Arc::new(Shared { open, mark, number, settled, _held: Box::new(held) }))
    }

    /// Another share in the record.
    pub fn share(&self) -> Self {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        Self(self.0.clone())
    }

    /// Settles this share.
    pub fn settle(self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.settled.settled(self.0.mark);
        }
    }

    /// The record's sequence number.
    pub fn number(&self) -> &SequenceNumber {
        &self.0.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Heard(Mutex<Vec<u64>>);

    impl Settled for Heard {
        fn settled(&self, mark: u64) {
            self.0.lock().unwrap().push(mark);
        }
    }

    fn ticket(heard: &Arc<Heard>) -> Ticket {
        Ticket::new(heard.clone(), 7, SequenceNumber::parse("1").unwrap(), ())
    }

    #[test]
    fn a_record_is_settled_with_its_last_share() {
        let heard = Arc::new(Heard::default());
        let ticket = ticket(&heard);
        let shares = [ticket.share(), ticket.share()];
        ticket.settle();
        for share in shares {
            assert!(heard.0.lock().unwrap().is_empty());
            share.settle();
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
