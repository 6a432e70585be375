//! Rate limiters of the process, shared by all notifiers that AWS counts together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::delivery::PostRateLimiter;
use crate::streams::StreamRateLimits;
use crate::worker::config::arn::TableArn;

/// Rate limiters by account and region, because AWS limits requests by account and region.
#[derive(Debug)]
pub struct RateLimiters {
    get_records_per_second: u32,
    posts_per_second: u32,
    /// By account and region.
    limits: Mutex<HashMap<(String, String), Arc<StreamRateLimits>>>,
    /// By region, because one AWS identity posts for all notifiers.
    posts: Mutex<HashMap<String, Arc<PostRateLimiter>>>,
}

impl RateLimiters {
    /// Limits GetRecords requests per second in each account and region, and posts per second in each
    /// region.
    pub fn new(get_records_per_second: u32, posts_per_second: u32) -> Self {
        let (limits, posts) = (Mutex::default(), Mutex::default());
        Self { get_records_per_second, posts_per_second, limits, posts }
    }

    /// The limiter of posts to WebSocket APIs in a region.
    pub fn for_posts(&self, region: &str) -> Arc<PostRateLimiter> {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(PostRateLimiter::new(self.posts_per_second));
        posts.entry(region.to_owned()).or_insert_with(made).clone()
    }

    /// The limiters of requests to the streams of a table.
    pub fn for_stream(&self, table: &TableArn) -> Arc<StreamRateLimits> {
        let place = (table.account.clone(), table.region.clone());
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(StreamRateLimits::new(self.get_records_per_second));
        limits.entry(place).or_insert_with(made).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(region: &str, account: &str, name: &str) -> TableArn {
        let arn = format!("arn:aws:dynamodb:{region}:{account}:table/{name}");
        TableArn { arn, region: region.to_owned(), account: account.to_owned() }
    }

    #[test]
    fn shares_rate_limiters_by_account_and_region() {
        let limits = RateLimiters::new(1000, 5000);
        let orders = limits.for_stream(&table("eu-west-1", "123456789012", "orders"));
        let same = limits.for_stream(&table("eu-west-1", "123456789012", "devices"));
        assert!(Arc::ptr_eq(&orders, &same));
        for other in [("eu-west-2", "123456789012"), ("eu-west-1", "210987654321")] {
            let other = limits.for_stream(&table(other.0, other.1, "orders"));
            assert!(!Arc::ptr_eq(&orders, &other));
        }
    }
}
