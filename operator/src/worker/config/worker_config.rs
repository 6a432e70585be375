//! What one worker needs to know: the user's spec, and what the process adds.

use std::sync::Arc;

use super::arn::{QueueArn, TableArn};
use crate::delivery::{DeliveryConfig, PostRateLimiter};
use crate::rules::{CompiledSpec, EvaluatorPool};
use crate::streams::{ConsumerConfig, InitialPosition, StreamRateLimits};
use crate::telemetry::{Health, NotifierTelemetry};
use crate::timing::JitterRng;

/// A valid spec, in the terms of the worker. Nothing reads the resource's spec after this.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Decides what each record means.
    pub rules: Arc<CompiledSpec>,
    /// The table.
    pub table: TableArn,
    /// Which streams to consume, and how.
    pub consumer: ConsumerConfig,
    /// Where to begin without a checkpoint.
    pub initial_position: InitialPosition,
    /// Where messages go.
    pub delivery: DeliveryConfig,
    /// The region that requests to the WebSocket API are signed for.
    pub signing_region: String,
    /// The queue for the records of dropped messages, if there is one.
    pub dead_letter_queue: Option<QueueArn>,
}

/// Everything that one worker is configured with.
#[derive(Debug)]
pub struct WorkerConfig {
    /// Decides what each record means.
    pub rules: Arc<CompiledSpec>,
    /// Pool that evaluates the notifier's expressions. The whole process shares it.
    pub evaluators: EvaluatorPool,
    /// Which streams to consume, and how.
    pub consumer: ConsumerConfig,
    /// Where to begin without a checkpoint.
    pub initial_position: InitialPosition,
    /// Where messages go.
    pub delivery: DeliveryConfig,
    /// The name under which this process holds the checkpoint.
    pub holder: String,
    /// Limits of calls to the streams of the table's account and region, shared by the process.
    pub stream_limits: Arc<StreamRateLimits>,
    /// Limit of posts in the endpoint's region, shared by the process.
    pub post_limiter: Arc<PostRateLimiter>,
    /// Where problems are reported.
    pub health: Arc<Health>,
    /// Where events are counted.
    pub telemetry: NotifierTelemetry,
    /// Spreads waits.
    pub rng: Arc<JitterRng>,
}
