//! Poll interval of a shard: none while it is behind, short while it is busy, and up to
//! `pollIntervalMilliseconds` while it is idle.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// A page with this number of records counts as full. Records over 1 KB fill a page with fewer,
/// which the age of the last record shows.
const FULL_PAGE_RECORDS: usize = 500;

/// If the last record of a page is older than this, more records follow. Record times are rounded
/// to whole seconds.
const BEHIND_SECONDS: i64 = 5;

/// Poll interval of a shard that just had records, or that is closed.
const MIN_INTERVAL: Duration = Duration::from_millis(25);

/// The interval grows by 1/64 of the time since the last record. A shard with one record every 2 s
/// is polled about every 40 ms. A shard that becomes idle reaches an interval of 250 ms after 14 s,
/// with about 90 more polls than at 250 ms throughout.
const GROWTH_DIVISOR: u32 = 64;

/// Maximum number of shards that are polled at the same time.
const MAX_COALESCED: u32 = 8;

/// Poll interval of one shard.
#[derive(Debug)]
pub struct PollInterval {
    max: Duration,
    last_record_at: Option<Instant>,
}

/// Properties of a page that determine when to poll again.
#[derive(Clone, Copy, Debug)]
pub struct PageStats {
    /// Number of records.
    pub records: usize,
    /// Age of the last record by the service's clock, in seconds.
    pub age: Option<i64>,
    /// Whether the shard receives no more records.
    pub is_closed: bool,
}

impl PollInterval {
    /// Creates the interval of a shard that is polled every `max` while it is idle.
    pub fn new(max: Duration) -> Self {
        Self { max, last_record_at: None }
    }

    /// The wait after a page, without jitter.
    pub fn next_wait(&mut self, page: PageStats, now: Instant) -> Duration {
        if page.records > 0 {
            self.last_record_at = Some(now);
        }
        let is_behind = page.age.is_some_and(|age| age > BEHIND_SECONDS);
        if page.records >= FULL_PAGE_RECORDS || page.records > 0 && is_behind {
            return Duration::ZERO;
        }
        if page.is_closed {
            return MIN_INTERVAL.min(self.max);
        }
        match self.last_record_at {
            Some(last) => (MIN_INTERVAL + now.duration_since(last) / GROWTH_DIVISOR).min(self.max),
            None => self.max,
        }
    }
}

/// Schedules the polls of a notifier's idle shards together, because most of the cost of such a
/// poll is the wake-up.
#[derive(Debug, Default)]
pub struct PollCoalescer(Mutex<Option<(Instant, u32)>>);

impl PollCoalescer {
    /// The wait of an idle shard whose poll is due after `wait`. It is shortened by up to half if
    /// the shard can join an earlier poll.
    pub fn coalesce(&self, wait: Duration, now: Instant) -> Duration {
        let mut next = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, shards)) = &mut *next
            && *shards < MAX_COALESCED
            && (now + wait / 2..=now + wait).contains(at)
        {
            *shards += 1;
            return at.duration_since(now);
        }
        *next = Some((now + wait, 1));
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(records: usize, age: Option<i64>) -> PageStats {
        PageStats { records, age, is_closed: false }
    }

    fn interval() -> PollInterval {
        PollInterval::new(Duration::from_millis(250))
    }

    #[tokio::test(start_paused = true)]
    async fn polls_idle_shards_together_up_to_the_maximum() {
        let (coalescer, wait) = (PollCoalescer::default(), Duration::from_millis(250));
        let mut next = [0, 60, 100, 170, 240].map(|ms| Instant::now() + Duration::from_millis(ms));
        for round in 0..20 {
            let until = next.iter().max().copied().unwrap();
            while let Some(first) = next.iter_mut().min().filter(|first| **first < until) {
                *first += coalescer.coalesce(wait, *first);
            }
            assert!(round < 2 || next == [until; 5], "{next:?}");
            next = next.map(|now| now + coalescer.coalesce(wait, now));
        }
        for _ in 5..MAX_COALESCED {
            assert!(coalescer.coalesce(wait, next[0] - wait / 2) <= wait);
        }
        assert_eq!(coalescer.coalesce(wait, next[0] - wait / 2), wait, "the group is full");
    }

    #[tokio::test(start_paused = true)]
    async fn polls_at_once_after_full_pages_and_old_records() {
        let now = Instant::now();
        assert_eq!(interval().next_wait(page(1000, Some(0)), now), Duration::ZERO);
        assert_eq!(interval().next_wait(page(3, Some(60)), now), Duration::ZERO, "large records");
        assert_eq!(interval().next_wait(page(3, Some(1)), now), MIN_INTERVAL);
    }

    #[tokio::test(start_paused = true)]
    async fn lengthens_the_interval_after_the_last_record() {
        let mut interval = interval();
        let started = Instant::now();
        interval.next_wait(page(1, Some(0)), started);
        let mut at = |seconds| {
            interval.next_wait(page(0, None), started + Duration::from_secs(seconds)).as_millis()
        };
        assert_eq!([at(0), at(2), at(8), at(15), at(3600)], [25, 56, 150, 250, 250]);
    }

    #[tokio::test(start_paused = true)]
    async fn polls_an_idle_shard_at_the_maximum_and_a_closed_one_at_the_minimum() {
        let now = Instant::now();
        assert_eq!(interval().next_wait(page(0, None), now).as_millis(), 250);
        let closed = PageStats { is_closed: true, ..page(0, None) };
        assert_eq!(interval().next_wait(closed, now), MIN_INTERVAL);
    }
}
