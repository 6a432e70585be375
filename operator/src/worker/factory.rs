//! Makes workers from specs. Holds what all workers of the process share.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::backends::Backends;
use super::rate_limiters::AccountLimits;
use super::run::work;
use crate::api::StreamNotifierSpec;
use crate::aws::Aws;
use crate::checkpoint::CheckpointStore;
use crate::rules::{Evaluator, InvalidSpec};
use crate::telemetry::{Health, Metrics, NotifierTelemetry};
use crate::timing::Random;
use crate::worker::config::endpoint::Endpoints;
use crate::worker::config::validate::{Prepared, prepare};
use crate::worker::config::worker_config::{Job, WorkerSpec};

/// Runs a worker until its token is cancelled. Can be called again after it ended.
pub type RunWorker =
    Box<dyn Fn(Arc<Health>, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// What all workers of the process share.
#[derive(Debug)]
pub struct WorkerFactory {
    /// The AWS configuration.
    pub aws: Aws,
    /// Which WebSocket domains are allowed, and where they are.
    pub endpoints: Endpoints,
    /// Evaluates expressions.
    pub evaluator: Evaluator,
    /// Rate limiters by account and region.
    pub rate_limiters: AccountLimits,
    /// The name under which this process holds checkpoints.
    pub holder: String,
    /// The metrics of the process.
    pub metrics: Metrics,
}

impl WorkerFactory {
    /// Validates a resource's spec.
    pub fn validate(&self, spec: &StreamNotifierSpec) -> Result<Prepared, InvalidSpec> {
        prepare(spec, &self.endpoints)
    }

    /// The worker of this notifier, which keeps its checkpoint in this store.
    pub fn worker(
        &self,
        namespace: &str,
        name: &str,
        spec: Arc<WorkerSpec>,
        checkpoints: Arc<dyn CheckpointStore>,
    ) -> RunWorker {
        let backends = Arc::new(Backends::new(&spec, &self.aws, checkpoints));
        let telemetry = NotifierTelemetry::new(self.metrics.clone(), namespace, name);
        let limits = self.rate_limiters.of(&spec.table);
        let post_limits = self.rate_limiters.posts(&spec.signing_region);
        let (evaluator, holder) = (self.evaluator.clone(), self.holder.clone());
        Box::new(move |health, stop| {
            let backends = backends.clone();
            let job = Job {
                notifier: spec.notifier.clone(),
                evaluator: evaluator.clone(),
                consumer: spec.consumer.clone(),
                begin: spec.begin,
                delivery: spec.delivery.clone(),
                holder: holder.clone(),
                limits: limits.clone(),
                post_limits: post_limits.clone(),
                health,
                telemetry: telemetry.clone(),
                random: Arc::new(Random::seeded(fastrand::u64(..))),
            };
            Box::pin(async move { work(&backends, &job, &stop).await })
        })
    }
}
