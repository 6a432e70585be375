//! The settled watermark of one shard: the last of the contiguous run of settled records, and so
//! never ahead of delivery.

use std::collections::VecDeque;

use crate::record::SequenceNumber;

/// Which records of a shard were read, and up to where all of them are settled.
#[derive(Debug, Default)]
pub struct Watermark {
    settled: Option<SequenceNumber>,
    /// Records after `settled`, in the order read. A run of settled ones is kept as its last.
    open: VecDeque<Entry>,
    next_ticket: u64,
}

#[derive(Debug)]
struct Entry {
    last: SequenceNumber,
    /// `None` once settled.
    ticket: Option<u64>,
}

impl Watermark {
    /// Notes a record that was read and needs no more work.
    pub fn skip(&mut self, number: SequenceNumber) {
        match self.open.back_mut() {
            None => self.settled = Some(number),
            Some(Entry { last, ticket: None }) => *last = number,
            Some(_) => self.open.push_back(Entry { last: number, ticket: None }),
        }
    }

    /// Notes a record that was read and is at work; its ticket settles it.
    pub fn begin(&mut self, number: SequenceNumber) -> u64 {
        let ticket = self.next_ticket;
        self.next_ticket += 1;
        self.open.push_back(Entry { last: number, ticket: Some(ticket) });
        ticket
    }

    /// Settles a record; `true` if the watermark moved.
    pub fn settle(&mut self, ticket: u64) -> bool {
        // Tickets are in order, so the one looked for is found by halving, settled runs aside.
        if let Some(entry) = self.open.iter_mut().find(|entry| entry.ticket == Some(ticket)) {
            entry.ticket = None;
        }
        let mut moved = false;
        while self.open.front().is_some_and(|entry| entry.ticket.is_none()) {
            self.settled = self.open.pop_front().map(|entry| entry.last);
            moved = true;
        }
        moved
    }

    /// The last record of the contiguous run of settled ones.
    pub fn settled(&self) -> Option<&SequenceNumber> {
        self.settled.as_ref()
    }

    /// Whether nothing read is still at work.
    pub fn is_idle(&self) -> bool {
        self.open.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(n: u64) -> SequenceNumber {
        SequenceNumber::parse(&n.to_string()).unwrap()
    }

    #[test]
    fn a_record_at_work_holds_back_all_after_it() {
        let mut mark = Watermark::default();
        mark.skip(number(1));
        let second = mark.begin(number(2));
        let third = mark.begin(number(3));
        mark.skip(number(4));
        assert!(!mark.settle(third));
        assert_eq!(mark.settled(), Some(&number(1)));
        assert!(mark.settle(second));
        assert_eq!(mark.settled(), Some(&number(4)));
        assert!(mark.is_idle());
    }

    #[test]
    fn skipped_records_take_no_room() {
        let mut mark = Watermark::default();
        let first = mark.begin(number(1));
        for n in 2..1000 {
            mark.skip(number(n));
        }
        assert_eq!(mark.open.len(), 2);
        mark.settle(first);
        assert_eq!(mark.settled(), Some(&number(999)));
    }

    #[test]
    fn settling_twice_changes_nothing() {
        let mut mark = Watermark::default();
        let first = mark.begin(number(1));
        assert!(mark.settle(first));
        let second = mark.begin(number(2));
        assert!(!mark.settle(first));
        assert_eq!(mark.settled(), Some(&number(1)));
        assert!(mark.settle(second));
    }
}
