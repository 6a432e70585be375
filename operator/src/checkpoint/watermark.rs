//! The watermark of one shard: the last of the contiguous run of settled records. It is never ahead of
//! delivery.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::model::SequenceNumber;

/// Tracks the records of a shard that are in flight, and up to where all are settled.
#[derive(Debug, Default)]
pub struct Watermark {
    settled: Option<SequenceNumber>,
    /// Records after `settled`, by slot. A run of settled records is one entry, its last one, so that
    /// memory grows with the records in flight and not with those behind them.
    in_flight: BTreeMap<u64, Entry>,
    next: u64,
}

#[derive(Debug)]
struct Entry {
    number: SequenceNumber,
    is_settled: bool,
}

impl Watermark {
    /// Marks a record that needs no work as settled.
    pub fn skip(&mut self, number: SequenceNumber) {
        match self.in_flight.last_entry() {
            None => self.settled = Some(number),
            Some(mut run) if run.get().is_settled => run.get_mut().number = number,
            Some(_) => {
                let slot = self.track(number);
                self.complete(slot);
            }
        }
    }

    /// Adds a record in flight, and returns the slot that completes it.
    pub fn track(&mut self, number: SequenceNumber) -> u64 {
        let slot = self.next;
        self.next += 1;
        if fault!(CheckpointAdvancesOnRead) {
            self.settled = Some(number);
            return slot;
        }
        self.in_flight.insert(slot, Entry { number, is_settled: false });
        slot
    }

    /// Settles the record of a slot. Returns whether the watermark moved.
    pub fn complete(&mut self, slot: u64) -> bool {
        match self.in_flight.get_mut(&slot) {
            Some(entry) => entry.is_settled = true,
            None => return false,
        }
        let is_settled = |(_, entry): (&u64, &Entry)| entry.is_settled;
        if self
            .in_flight
            .range((Bound::Excluded(slot), Bound::Unbounded))
            .next()
            .is_some_and(is_settled)
        {
            self.in_flight.remove(&slot);
        }
        if let Some((&before, _)) =
            self.in_flight.range(..slot).next_back().filter(|it| it.1.is_settled)
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

    /// Whether no record is in flight.
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
    fn holds_the_watermark_for_a_record_in_flight() {
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
    fn keeps_no_memory_for_skipped_records() {
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
    fn keeps_no_memory_for_settled_records_behind_one_in_flight() {
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
    fn ignores_a_second_completion() {
        let mut mark = Watermark::default();
        let first = mark.track(number(1));
        assert!(mark.complete(first));
        let second = mark.track(number(2));
        assert!(!mark.complete(first));
        assert_eq!(mark.settled(), Some(&number(1)));
        assert!(mark.complete(second));
    }
}
