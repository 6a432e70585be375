//! Makes workers from specs. Holds what all workers of the process share.

use std::io;
use std::sync::Arc;

use thiserror::Error;

use super::backends::Backends;
use super::config::endpoint::Endpoints;
use super::config::validate::{Validated, validate};
use super::config::worker_config::{WorkerConfig, WorkerSpec};
use super::rate_limiters::RateLimiters;
use super::run::run_worker;
use super::worker_handle::RunWorker;
use crate::api::StreamNotifierSpec;
use crate::aws::{AwsConfig, CaBundleError};
use crate::checkpoint::CheckpointStore;
use crate::rules::{EvaluatorPool, InvalidSpec};
use crate::telemetry::{Metrics, NotifierTelemetry};
use crate::timing::JitterRng;

/// The factory cannot be created.
#[derive(Debug, Error)]
pub enum FactoryError {
    #[error(transparent)]
    CaBundle(#[from] CaBundleError),
    #[error("cannot start the threads that evaluate expressions")]
    Threads(#[from] io::Error),
}

/// What all workers of the process share.
#[derive(Debug)]
pub struct WorkerFactory {
    pub aws: AwsConfig,
    /// Allowed WebSocket domains, and their endpoints.
    pub endpoints: Endpoints,
    /// Evaluates the expressions of all notifiers.
    pub evaluators: EvaluatorPool,
    /// Rate limiters by account and region.
    pub rate_limiters: RateLimiters,
    /// The name under which this process holds checkpoints.
    pub holder: String,
    pub metrics: Metrics,
}

impl WorkerFactory {
    /// A factory with the AWS configuration of the environment.
    ///
    /// # Errors
    ///
    /// The file of `AWS_CA_BUNDLE` is not usable, or the threads that evaluate expressions cannot be
    /// started.
    pub async fn from_environment(
        endpoints: Endpoints,
        rate_limiters: RateLimiters,
        holder: String,
    ) -> Result<Self, FactoryError> {
        let aws = AwsConfig::from_environment().await?;
        Ok(Self::new(aws, endpoints, rate_limiters, holder)?)
    }

    /// A factory for local mode, with this endpoint of the embedded DynamoDB.
    ///
    /// # Errors
    ///
    /// The threads that evaluate expressions cannot be started.
    #[cfg(feature = "local")]
    pub async fn local(
        dynamodb_endpoint: &str,
        endpoints: Endpoints,
        rate_limiters: RateLimiters,
    ) -> io::Result<Self> {
        let aws = AwsConfig::local(dynamodb_endpoint).await;
        Self::new(aws, endpoints, rate_limiters, "local".to_owned())
    }

    fn new(
        aws: AwsConfig,
        endpoints: Endpoints,
        rate_limiters: RateLimiters,
        holder: String,
    ) -> io::Result<Self> {
        let (evaluators, metrics) = (EvaluatorPool::on_threads(None)?, Metrics::default());
        Ok(Self { aws, endpoints, evaluators, rate_limiters, holder, metrics })
    }

    /// Validates the spec of a resource.
    ///
    /// # Errors
    ///
    /// Names the first invalid field, and what to write instead.
    pub fn validate(&self, spec: &StreamNotifierSpec) -> Result<Validated, InvalidSpec> {
        validate(spec, &self.endpoints)
    }

    /// The worker of a notifier, with the store of its checkpoint.
    pub fn worker(
        &self,
        namespace: &str,
        name: &str,
        spec: Arc<WorkerSpec>,
        checkpoints: Arc<dyn CheckpointStore>,
    ) -> RunWorker {
        let backends = Arc::new(Backends::new(&spec, &self.aws, checkpoints));
        let telemetry = NotifierTelemetry::new(self.metrics.clone(), namespace, name);
        let stream_limits = self.rate_limiters.for_stream(&spec.table);
        let post_limiter = self.rate_limiters.for_posts(&spec.signing_region);
        let (evaluators, holder) = (self.evaluators.clone(), self.holder.clone());
        Box::new(move |health, stop| {
            let backends = backends.clone();
            let config = WorkerConfig {
                rules: spec.rules.clone(),
                evaluators: evaluators.clone(),
                consumer: spec.consumer.clone(),
                initial_position: spec.initial_position,
                delivery: spec.delivery.clone(),
                holder: holder.clone(),
                stream_limits: stream_limits.clone(),
                post_limiter: post_limiter.clone(),
                health,
                telemetry: telemetry.clone(),
                rng: Arc::new(JitterRng::seeded(fastrand::u64(..))),
            };
            Box::pin(async move { run_worker(&backends, &config, &stop).await })
        })
    }
}
