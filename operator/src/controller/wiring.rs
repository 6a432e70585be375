//! Puts a worker together from what the spec asks for: the same for a cluster and for one machine.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::validate::{Queue, Table, Work};
use crate::aws::{ApiGateway, Aws, DynamoDbConnections, DynamoDbStreams, SqsQueue};
use crate::backoff::Random;
use crate::delivery::{Bounds, DeadLetterQueue, PostLimits};
use crate::stream::Limits;
use crate::telemetry::{Health, NotifierTelemetry};
use crate::worker::{Evaluator, Job, Neighbours};

/// How often AWS is asked: one set of limits for all notifiers whose tables are in the same account
/// and region, since it is those that AWS limits.
#[derive(Debug)]
pub struct AccountLimits {
    get_records_per_second: u32,
    posts_per_second: u32,
    /// By account and region.
    limits: Mutex<HashMap<(String, String), Arc<Limits>>>,
    /// By region: one identity posts for all.
    posts: Mutex<HashMap<String, Arc<PostLimits>>>,
}

impl AccountLimits {
    /// With this many GetRecords calls a second for each account and region, and this many posts for
    /// each region.
    pub fn new(get_records_per_second: u32, posts_per_second: u32) -> Self {
        let (limits, posts) = (Mutex::default(), Mutex::default());
        Self { get_records_per_second, posts_per_second, limits, posts }
    }

    /// The limits that WebSocket APIs of a region are posted to within.
    pub fn posts(&self, region: &str) -> Arc<PostLimits> {
        let mut posts = self.posts.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(PostLimits::new(self.posts_per_second));
        posts.entry(region.to_owned()).or_insert_with(made).clone()
    }

    /// The limits that a table's streams are read within.
    pub fn of(&self, table: &Table) -> Arc<Limits> {
        let place = (table.account.clone(), table.region.clone());
        let mut limits = self.limits.lock().unwrap_or_else(PoisonError::into_inner);
        let made = || Arc::new(Limits::new(self.get_records_per_second));
        limits.entry(place).or_insert_with(made).clone()
    }
}

impl Work {
    /// The worker's neighbours in AWS, and this checkpoint store.
    pub fn neighbours<K>(
        &self,
        aws: &Aws,
        store: K,
    ) -> Neighbours<DynamoDbStreams, DynamoDbConnections, ApiGateway, K> {
        let Table { region, arn, .. } = &self.table;
        let signed_for = self.signed_for();
        Neighbours {
            streams: Arc::new(DynamoDbStreams::new(aws, region, arn)),
            connections: Arc::new(DynamoDbConnections::new(aws, self.source.clone())),
            gateway: Arc::new(ApiGateway::new(aws, signed_for, &self.endpoint.url)),
            store: Arc::new(store),
        }
    }

    /// The region that posts are signed for.
    pub fn signed_for(&self) -> &str {
        self.endpoint.region.as_deref().unwrap_or(&self.table.region)
    }

    /// The queue for the records of lost messages in AWS, with its ARN.
    pub fn dead_letters(&self, aws: &Aws) -> Option<(String, Arc<dyn DeadLetterQueue>)> {
        let Queue { arn, region, url } = self.dead_letters.as_ref()?;
        Some((arn.clone(), Arc::new(SqsQueue::new(aws, region, url))))
    }

    /// The worker's job.
    pub fn job(
        self,
        evaluator: Evaluator,
        limits: Arc<Limits>,
        post_limits: Arc<PostLimits>,
        holder: String,
        health: Arc<Health>,
        telemetry: NotifierTelemetry,
    ) -> Job {
        Job {
            notifier: self.notifier,
            evaluator,
            table: self.table.arn,
            follow: self.follow,
            begin: self.begin,
            on_gap: self.on_gap,
            poll_interval: self.poll_interval,
            limits,
            post_limits,
            policy: self.policy,
            dead_letters: None,
            bounds: Bounds::default(),
            source: self.source,
            endpoint: self.endpoint.url,
            holder,
            health,
            telemetry,
            random: Arc::new(Random::seeded(fastrand::u64(..))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(region: &str, account: &str, name: &str) -> Table {
        let arn = format!("arn:aws:dynamodb:{region}:{account}:table/{name}");
        Table { arn, region: region.to_owned(), account: account.to_owned() }
    }

    #[test]
    fn tables_of_one_account_and_region_share_their_limits() {
        let limits = AccountLimits::new(1000, 5000);
        let orders = limits.of(&table("eu-west-1", "123456789012", "orders"));
        let same = limits.of(&table("eu-west-1", "123456789012", "devices"));
        assert!(Arc::ptr_eq(&orders, &same));
        for other in [("eu-west-2", "123456789012"), ("eu-west-1", "210987654321")] {
            let other = limits.of(&table(other.0, other.1, "orders"));
            assert!(!Arc::ptr_eq(&orders, &other));
        }
    }
}
