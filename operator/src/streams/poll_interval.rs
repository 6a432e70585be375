//! How soon a shard is asked again: at once while it is behind, soon while it is busy, and as often
//! as the notifier says once it is quiet.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// From so many records on, a page is taken to be full: records of 1 KB and more fill it sooner.
const FULL_PAGE_RECORDS: usize = 500;

/// A record older than this, on a page that was just read, is not the newest. Times are whole seconds.
const BEHIND_SECONDS: i64 = 5;

/// How soon a shard is asked again that just had records, or will have no more.
const MIN_INTERVAL: Duration = Duration::from_millis(25);

/// The interval grows with the time since the last record, by 1/64 of it: a shard with a change every
/// two seconds is asked about every 40 ms, and one that falls quiet is asked 90 times more than it
/// would have been until, after 14 s, it is back at 250 ms.
const GROWTH_DIVISOR: u32 = 64;

/// One shard's pace.
#[derive(Debug)]
pub struct PollInterval {
    max: Duration,
    last_record_at: Option<Instant>,
}

/// What a page says of the shard.
#[derive(Clone, Copy, Debug)]
pub struct PageStats {
    /// How many records it had.
    pub records: usize,
    /// The age of the last one by the service's clock, in seconds.
    pub age: Option<i64>,
    /// Whether the shard gets no more records.
    pub is_closed: bool,
}

impl PollInterval {
    /// The pace of a shard that is asked every `quiet` when nothing happens.
    pub fn new(max: Duration) -> Self {
        Self { max, last_record_at: None }
    }

    /// How long to leave the shard alone after a page, without jitter.
    pub fn next_wait(&mut self, seen: PageStats, now: Instant) -> Duration {
        if seen.records > 0 {
            self.last_record_at = Some(now);
        }
        let is_behind = seen.age.is_some_and(|age| age > BEHIND_SECONDS);
        if seen.records >= FULL_PAGE_RECORDS || seen.records > 0 && is_behind {
            return Duration::ZERO;
        }
        if seen.is_closed {
            return MIN_INTERVAL.min(self.max);
        }
        match self.last_record_at {
            Some(last) => (MIN_INTERVAL + now.duration_since(last) / GROWTH_DIVISOR).min(self.max),
            None => self.max,
        }
    }
}

/// So many shards are asked at the same time, and no more.
const MAX_COALESCED: u32 = 8;

/// When quiet shards of a notifier are asked next. They are asked together: most of what it takes to
/// ask one is to wake up for it.
#[derive(Debug, Default)]
pub struct PollCoalescer(Mutex<Option<(Instant, u32)>>);

impl PollCoalescer {
    /// How long a quiet shard waits that is to be asked after `pause`, or up to a half of that earlier
    /// if others are.
    pub fn join(&self, pause: Duration, now: Instant) -> Duration {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, shards)) = &mut *next
            && *shards < MAX_COALESCED
            && (now + pause / 2..=now + pause).contains(at)
        {
            *shards += 1;
            return at.duration_since(now);
        }
        *next = Some((now + pause, 1));
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn quiet_shards_come_together_and_stay_so() {
        let (beat, pause) = (PollCoalescer::default(), Duration::from_millis(250));
        let mut next = [0, 60, 100, 170, 240].map(|ms| Instant::now() + Duration::from_millis(ms));
        for round in 0..20 {
            let until = next.iter().max().copied().unwrap();
            while let Some(first) = next.iter_mut().min().filter(|first| **first < until) {
                *first += beat.join(pause, *first);
            }
            assert!(round < 2 || next == [until; 5], "{next:?}");
            next = next.map(|now| now + beat.join(pause, now));
        }
        for _ in 5..MAX_COALESCED {
            assert!(beat.join(pause, next[0] - pause / 2) <= pause);
        }
        assert_eq!(beat.join(pause, next[0] - pause / 2), pause, "there are enough");
    }

    fn seen(records: usize, age: Option<i64>) -> PageStats {
        PageStats { records, age, is_closed: false }
    }

    fn pace() -> PollInterval {
        PollInterval::new(Duration::from_millis(250))
    }

    #[tokio::test(start_paused = true)]
    async fn full_pages_and_old_records_are_followed_at_once() {
        let now = Instant::now();
        assert_eq!(pace().next_wait(seen(1000, Some(0)), now), Duration::ZERO);
        assert_eq!(pace().next_wait(seen(3, Some(60)), now), Duration::ZERO, "large records");
        assert_eq!(pace().next_wait(seen(3, Some(1)), now), MIN_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_shard_decays_to_a_quiet_one() {
        let mut pace = pace();
        let begun = Instant::now();
        pace.next_wait(seen(1, Some(0)), begun);
        let mut at = |seconds| {
            pace.next_wait(seen(0, None), begun + Duration::from_secs(seconds)).as_millis()
        };
        assert_eq!([at(0), at(2), at(8), at(15), at(3600)], [25, 56, 150, 250, 250]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_shard_is_asked_as_often_as_it_says_and_a_closed_one_is_read_out() {
        let now = Instant::now();
        assert_eq!(pace().next_wait(seen(0, None), now).as_millis(), 250);
        let closed = PageStats { is_closed: true, ..seen(0, None) };
        assert_eq!(pace().next_wait(closed, now), MIN_INTERVAL);
    }
}
