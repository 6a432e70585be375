//! Puts a worker together from what the spec asks for: the same for a cluster and for one machine.

use std::sync::Arc;
use std::time::Duration;

use super::validate::Work;
use crate::aws::{ApiGateway, Aws, DynamoDbConnections, DynamoDbStreams};
use crate::backoff::Random;
use crate::telemetry::{Health, NotifierTelemetry};
use crate::worker::{Job, Neighbours};

/// How often a quiet shard is asked: as often as Lambda does.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

impl Work {
    /// The worker's neighbours in AWS, and this checkpoint store.
    pub fn neighbours<K>(
        &self,
        aws: &Aws,
        store: K,
    ) -> Neighbours<DynamoDbStreams, DynamoDbConnections, ApiGateway, K> {
        let region = &self.region;
        let signed_for = self.endpoint.region.as_deref().unwrap_or(region);
        Neighbours {
            streams: Arc::new(DynamoDbStreams::new(aws, region, &self.stream)),
            connections: Arc::new(DynamoDbConnections::new(aws, region, self.source.clone())),
            gateway: Arc::new(ApiGateway::new(aws, signed_for, &self.endpoint.url)),
            store: Arc::new(store),
        }
    }

    /// The worker's job.
    pub fn job(self, holder: String, health: Arc<Health>, telemetry: NotifierTelemetry) -> Job {
        Job {
            notifier: self.notifier,
            stream: self.stream,
            starting_position: self.starting_position,
            source: self.source,
            endpoint: self.endpoint.url,
            holder,
            poll_interval: POLL_INTERVAL,
            health,
            telemetry,
            random: Arc::new(Random::seeded(fastrand::u64(..))),
        }
    }
}
