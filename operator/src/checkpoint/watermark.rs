//! The settled watermark of one shard: the last of the contiguous run of settled records, and so
//! never ahead of delivery.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::model::SequenceNumber;

/// Which records of a shard were read, and up to where all of them are settled.
#[derive(Debug, Default)]
pub struct Watermark {
    settled: Option<SequenceNumber>,
    /// What was read after `settled`, by its mark. A run that is settled is one entry, its last: what
    /// waits behind one record takes no more room than the records that are at work.
    in_flight: BTreeMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: SequenceNumber,
    is_settled: bool,
}

impl Watermark {
    /// Notes a record that was read and needs no work.
    pub fn skip(&mut self, number: SequenceNumber) {
        match self.in_flight.last_entry() {
            None => self.settled = Some(number),
            Some(mut run) if run.get().is_settled => run.get_mut().number = number,
            Some(_) => {
                let mark = self.track(number);
                self.complete(mark);
            }
        }
    }

    /// Notes a record that was read and is at work; its mark settles it.
    pub fn track(&mut self, number: SequenceNumber) -> u64 {
        let mark = self.next;
        self.next += 1;
        if fault!(CheckpointAdvancesOnRead) {
            self.settled = Some(number);
            return mark;
        }
        self.in_flight.insert(mark, Entry { number, is_settled: false });
        mark
    }

    /// Settles a record; `true` if the watermark moved.
    pub fn complete(&mut self, mark: u64) -> bool {
        match self.in_flight.get_mut(&mark) {
            Some(entry) => entry.is_settled = true,
            None => return false,
        }
        let is_settled = |(_, entry): (&u64, &Entry)| entry.is_settled;
        if self
            .in_flight
            .range((Bound::Excluded(mark), Bound::Unbounded))
            .next()
            .is_some_and(is_settled)
        {
            self.in_flight.remove(&mark);
        }
        if let Some((&before, _)) =
            self.in_flight.range(..mark).next_back().filter(|it| it.1.is_settled)
        {
            self.in_flight.remove(&before);
        }
        let first = self.in_flight.first_entry().filter(|first| first.get().is_settled);
        let moved = first.map(|first| first.remove().number);
        let has_moved = moved.is_some();
        if has_moved {
            self.settled = moved;
        }
        has_moved
    }

    /// The last record of the contiguous run of settled ones.
    pub fn settled(&self) -> Option<&SequenceNumber> {
        self.settled.as_ref()
    }

    /// Whether nothing that was read is still at work.
    pub fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
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
        let second = mark.track(number(2));
        let third = mark.track(number(3));
        mark.skip(number(4));
        assert!(!mark.complete(third));
        assert_eq!(mark.settled(), Some(&number(1)));
        assert!(mark.complete(second));
        assert_eq!(mark.settled(), Some(&number(4)));
        assert!(mark.is_idle());
    }

    #[test]
    fn skipped_records_take_no_room() {
        let mut mark = Watermark::default();
        let first = mark.track(number(1));
        for n in 2..1000 {
            mark.skip(number(n));
        }
        assert_eq!(mark.in_flight.len(), 2);
        mark.complete(first);
        assert_eq!(mark.settled(), Some(&number(999)));
    }

    #[test]
    fn what_is_settled_behind_a_record_at_work_takes_no_room() {
        let mut mark = Watermark::default();
        let first = mark.track(number(1));
        let behind: Vec<_> = (2..1000).map(|n| mark.track(number(n))).collect();
        let (odd, even): (Vec<u64>, Vec<u64>) = behind.iter().partition(|place| **place % 2 == 1);
        for place in even.into_iter().chain(odd.into_iter().rev()) {
            assert!(!mark.complete(place));
        }
        assert_eq!(mark.in_flight.len(), 2);
        assert!(mark.complete(first));
        assert_eq!(mark.settled(), Some(&number(999)));
        assert!(mark.is_idle());
    }

    #[test]
    fn settling_twice_changes_nothing() {
        let mut mark = Watermark::default();
        let first = mark.track(number(1));
        assert!(mark.complete(first));
        let second = mark.track(number(2));
        assert!(!mark.complete(first));
        assert_eq!(mark.settled(), Some(&number(1)));
        assert!(mark.complete(second));
    }
}
