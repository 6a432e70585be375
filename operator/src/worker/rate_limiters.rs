//! Rate limiters of the process, shared by all notifiers that AWS counts together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::delivery::PostRateLimiter;
use crate::streams::StreamRateLimits;
use crate::worker::config::arn::TableArn;

/// How often AWS is asked: one set of limits for all notifiers whose tables are in the same account
/// and region, since it is those that AWS limits.
#[derive(Debug)]
pub struct RateLimiters {
    get_records_per_second: u32,
    posts_per_second: u32,
    /// By account and region.
    limits: Mutex<HashMap<(String, String), Arc<StreamRateLimits>>>,
    /// By region: one identity posts for all.
    posts: Mutex<HashMap<String, Arc<PostRateLimiter>>>,
}

impl RateLimiters {
    /// With this many GetRecords calls a second for each account and region, and this many posts for
    /// each region.
    pub fn new(get_records_per_second: u32, posts_per_second: u32) -> Self {
        let (limits, posts) = (Mutex::default(), Mutex::default());
        Self { get_records_per_second, posts_per_second, limits, posts }
    }

    /// The limits that WebSocket APIs of a region are posted to within.
    pub fn for_posts(&self, region: &str) -> Arc<PostRateLimiter> {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(PostRateLimiter::new(self.posts_per_second));
        posts.entry(region.to_owned()).or_insert_with(made).clone()
    }

    /// The limits that a table's streams are read within.
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
    fn tables_of_one_account_and_region_share_their_limits() {
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
