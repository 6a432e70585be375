//! Makes workers from specs. Holds what all workers of the process share.

use std::sync::Arc;

use futures::future::BoxFuture;
use tokio_util::sync::CancellationToken;

use super::backends::Backends;
use super::rate_limiters::RateLimiters;
use super::run::run_worker;
use crate::api::StreamNotifierSpec;
use crate::aws::AwsConfig;
use crate::checkpoint::CheckpointStore;
use crate::rules::{EvaluatorPool, InvalidSpec};
use crate::telemetry::{Health, Metrics, NotifierTelemetry};
use crate::timing::JitterRng;
use crate::worker::config::endpoint::Endpoints;
use crate::worker::config::validate::{Validated, validate};
use crate::worker::config::worker_config::{WorkerConfig, WorkerSpec};

/// Runs a worker until its token is cancelled. Can be called again after it ended.
pub type RunWorker =
    Box<dyn Fn(Arc<Health>, CancellationToken) -> BoxFuture<'static, ()> + Send + Sync>;

/// What all workers of the process share.
#[derive(Debug)]
pub struct WorkerFactory {
    /// The AWS configuration.
    pub aws: AwsConfig,
    /// Which WebSocket domains are allowed, and where they are.
    pub endpoints: Endpoints,
    /// Evaluates expressions.
    pub evaluators: EvaluatorPool,
    /// Rate limiters by account and region.
    pub rate_limiters: RateLimiters,
    /// The name under which this process holds checkpoints.
    pub holder: String,
    /// The metrics of the process.
    pub metrics: Metrics,
}

impl WorkerFactory {
    /// Validates a resource's spec.
    pub fn validate(&self, spec: &StreamNotifierSpec) -> Result<Validated, InvalidSpec> {
        validate(spec, &self.endpoints)
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
        let limits = self.rate_limiters.for_stream(&spec.table);
        let post_limits = self.rate_limiters.for_posts(&spec.signing_region);
        let (evaluator, holder) = (self.evaluators.clone(), self.holder.clone());
        Box::new(move |health, stop| {
            let backends = backends.clone();
            let job = WorkerConfig {
                rules: spec.rules.clone(),
                evaluators: evaluator.clone(),
                consumer: spec.consumer.clone(),
                initial_position: spec.initial_position,
                delivery: spec.delivery.clone(),
                holder: holder.clone(),
                stream_limits: limits.clone(),
                post_limiter: post_limits.clone(),
                health,
                telemetry: telemetry.clone(),
                rng: Arc::new(JitterRng::seeded(fastrand::u64(..))),
            };
            Box::pin(async move { run_worker(&backends, &job, &stop).await })
        })
    }
}
