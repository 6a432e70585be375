//! How often the streams of one account in one region are asked, by all notifiers of the process
//! together.

use std::time::Duration;

use crate::timing::FifoRateLimiter;

/// DescribeStream may be called ten times a second per account and region; what is left is for
/// others. With the burst there are never more than ten in any second.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>
const MAX_DESCRIBES_PER_SECOND: u32 = 8;
const DESCRIBE_BURST: u32 = 2;

/// Most of those may be for whole listings, so that the children of a shard never wait for them all.
const MAX_LISTINGS_PER_SECOND: u32 = 6;

/// The limits of one account in one region.
#[derive(Debug)]
pub struct StreamRateLimits {
    /// For pages of whole listings, which are within the next one too.
    pub list: CallRateLimiter,
    /// For DescribeStream.
    pub describe: CallRateLimiter,
    /// For GetRecords and GetShardIterator.
    pub read: CallRateLimiter,
}

impl StreamRateLimits {
    /// With this many GetRecords calls a second; AWS publishes no limit of its own, but bills them.
    pub fn new(get_records_per_second: u32) -> Self {
        Self {
            list: CallRateLimiter::new(MAX_LISTINGS_PER_SECOND, DESCRIBE_BURST),
            describe: CallRateLimiter::new(MAX_DESCRIBES_PER_SECOND, DESCRIBE_BURST),
            read: CallRateLimiter::new(get_records_per_second, get_records_per_second.div_ceil(10)),
        }
    }
}

/// So many calls a second, in the order in which they were asked for.
#[derive(Debug)]
pub struct CallRateLimiter {
    /// The time that one call takes up.
    cost: Duration,
    /// How much of it may be saved up.
    burst: Duration,
    limiter: FifoRateLimiter,
}

impl CallRateLimiter {
    /// `per_second` calls, up to `at_once` of them without a wait.
    pub fn new(per_second: u32, at_once: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second.max(1);
        Self { cost, burst: cost * at_once.saturating_sub(1), limiter: FifoRateLimiter::default() }
    }

    /// Waits for its turn.
    pub async fn acquire(&self) {
        self.limiter.acquire(self.burst, |_| self.cost).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn never_more_than_ten_descriptions_in_any_second() {
        let limits = StreamRateLimits::new(1000);
        let mut begun = Vec::new();
        for _ in 0..40 {
            limits.describe.acquire().await;
            begun.push(Instant::now());
        }
        for calls in begun.windows(11) {
            assert!(calls[10] - calls[0] > Duration::from_secs(1), "{calls:?}");
        }
        let all = begun[39] - begun[0];
        assert!(all < Duration::from_secs(5), "{all:?}: it is not slower than it must be");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_is_there_at_once_but_not_for_ever() {
        let budget = CallRateLimiter::new(10, 3);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        for _ in 0..3 {
            budget.acquire().await;
        }
        assert_eq!(begun.elapsed(), Duration::ZERO);
        // Nobody waits for those who gave up waiting.
        for _ in 0..50 {
            let waits = tokio::time::timeout(Duration::from_millis(1), budget.acquire());
            assert!(waits.await.is_err());
        }
        budget.acquire().await;
        assert_eq!(begun.elapsed().as_millis(), 100);
    }
}
