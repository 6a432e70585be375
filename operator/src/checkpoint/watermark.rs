//! The settled watermark of one shard: the last of the contiguous run of settled records, and so
//! never ahead of delivery.

use std::collections::VecDeque;

use crate::record::SequenceNumber;

/// Which records of a shard were read, and up to where all of them are settled.
#[derive(Debug, Default)]
pub struct Watermark {
    settled: Option<SequenceNumber>,
    /// What was read after `settled`, in order. A run that needed no work is one entry, its last.
    open: VecDeque<Entry>,
    /// How many entries were ever taken off the front: a ticket is an entry's place since the start.
    taken: u64,
}

#[derive(Debug)]
struct Entry {
    last: SequenceNumber,
    settled: bool,
    /// Whether a ticket was given for it, so that no later record may join it.
    ticketed: bool,
}

impl Watermark {
    /// Notes a record that was read and needs no work.
    pub fn skip(&mut self, number: SequenceNumber) {
        match self.open.back_mut() {
            None => self.settled = Some(number),
            Some(Entry { last, ticketed: false, .. }) => *last = number,
            Some(_) => self.open.push_back(Entry { last: number, settled: true, ticketed: false }),
        }
    }

    /// Notes a record that was read and is at work; its ticket settles it.
    pub fn begin(&mut self, number: SequenceNumber) -> u64 {
        self.open.push_back(Entry { last: number, settled: false, ticketed: true });
        self.taken + self.open.len() as u64 - 1
    }

    /// Settles a record; `true` if the watermark moved.
    pub fn settle(&mut self, ticket: u64) -> bool {
        let entry = ticket
            .checked_sub(self.taken)
            .and_then(|place| self.open.get_mut(usize::try_from(place).ok()?));
        if let Some(entry) = entry {
            entry.settled = true;
        }
        let before = self.taken;
        while self.open.front().is_some_and(|entry| entry.settled) {
            self.settled = self.open.pop_front().map(|entry| entry.last);
            self.taken += 1;
        }
        self.taken > before
    }

    /// The last record of the contiguous run of settled ones.
    pub fn settled(&self) -> Option<&SequenceNumber> {
        self.settled.as_ref()
    }

    /// Whether nothing that was read is still at work.
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
