//! Rate limits for DynamoDB Streams requests. All notifiers of the process share them for each
//! account and region.

use std::time::Duration;

use crate::timing::FifoRateLimiter;

/// AWS allows 10 DescribeStream requests per second for each account and region. The rest is left
/// to other programs. Together with the burst, the operator makes at most 10 in any second.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/ServiceQuotas.html>
const MAX_DESCRIBES_PER_SECOND: u32 = 8;
const DESCRIBE_BURST: u32 = 2;

/// The share of full listings in those requests. The rest serves requests for the children of a
/// shard, which therefore never wait for all listings.
const MAX_LISTINGS_PER_SECOND: u32 = 6;

/// Rate limits of one account in one region.
#[derive(Debug)]
pub struct StreamRateLimits {
    /// For ListStreams, and for pages of full listings. Those pages need `describe` too.
    pub list: CallRateLimiter,
    /// For DescribeStream.
    pub describe: CallRateLimiter,
    /// For GetRecords and GetShardIterator.
    pub read: CallRateLimiter,
}

impl StreamRateLimits {
    /// Limits with the given rate for GetRecords. AWS publishes no quota for the account, but bills
    /// each request.
    pub fn new(get_records_per_second: u32) -> Self {
        Self {
            list: CallRateLimiter::new(MAX_LISTINGS_PER_SECOND, DESCRIBE_BURST),
            describe: CallRateLimiter::new(MAX_DESCRIBES_PER_SECOND, DESCRIBE_BURST),
            read: CallRateLimiter::new(get_records_per_second, get_records_per_second.div_ceil(10)),
        }
    }
}

/// A rate limiter for requests, which admits them in the order in which they came.
#[derive(Debug)]
pub struct CallRateLimiter {
    /// Time of the limiter that one request uses.
    cost: Duration,
    /// Unused time that can be saved.
    burst: Duration,
    limiter: FifoRateLimiter,
}

impl CallRateLimiter {
    /// Admits `per_second` requests per second, up to `burst` of them at once.
    pub fn new(per_second: u32, burst: u32) -> Self {
        let cost = Duration::from_secs(1) / per_second.max(1);
        Self { cost, burst: cost * burst.saturating_sub(1), limiter: FifoRateLimiter::default() }
    }

    /// Waits until the next request is admitted.
    pub async fn acquire(&self) {
        self.limiter.acquire(self.burst, |_| self.cost).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn admits_at_most_ten_describe_requests_in_any_second() {
        let limits = StreamRateLimits::new(1000);
        let mut admitted = Vec::new();
        for _ in 0..40 {
            limits.describe.acquire().await;
            admitted.push(Instant::now());
        }
        for requests in admitted.windows(11) {
            assert!(requests[10] - requests[0] > Duration::from_secs(1), "{requests:?}");
        }
        let all = admitted[39] - admitted[0];
        assert!(all < Duration::from_secs(5), "{all:?}: slower than necessary");
    }

    #[tokio::test(start_paused = true)]
    async fn saves_unused_time_up_to_the_burst() {
        let limiter = CallRateLimiter::new(10, 3);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let started = Instant::now();
        for _ in 0..3 {
            limiter.acquire().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        // Cancelled requests use none of the limit.
        for _ in 0..50 {
            let acquired = tokio::time::timeout(Duration::from_millis(1), limiter.acquire());
            assert!(acquired.await.is_err());
        }
        limiter.acquire().await;
        assert_eq!(started.elapsed().as_millis(), 100);
    }
}
