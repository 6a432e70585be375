//! What one worker needs to know: what the user's spec asks for, and what the process adds.

use std::sync::Arc;

use super::arn::{Queue, Table};
use crate::delivery::{DeliveryConfig, PostLimits};
use crate::rules::{Evaluator, Notifier};
use crate::streams::{Begin, ConsumerConfig, Limits};
use crate::telemetry::{Health, NotifierTelemetry};
use crate::timing::Random;

/// A valid spec, in the terms of the worker. Nobody reads the resource's spec after this.
#[derive(Clone, Debug)]
pub struct WorkerSpec {
    /// Decides what each record means.
    pub notifier: Arc<Notifier>,
    /// The table.
    pub table: Table,
    /// Which streams to consume, and how.
    pub consumer: ConsumerConfig,
    /// Where to begin without a checkpoint.
    pub begin: Begin,
    /// Where messages go.
    pub delivery: DeliveryConfig,
    /// The region that requests to the WebSocket API are signed for.
    pub signing_region: String,
    /// The queue for the records of dropped messages, if there is one.
    pub dead_letter_queue: Option<Queue>,
}

/// Everything that one worker is configured with.
#[derive(Debug)]
pub struct Job {
    /// Decides what each record means.
    pub notifier: Arc<Notifier>,
    /// Evaluates its expressions, shared by the process.
    pub evaluator: Evaluator,
    /// Which streams to consume, and how.
    pub consumer: ConsumerConfig,
    /// Where to begin without a checkpoint.
    pub begin: Begin,
    /// Where messages go.
    pub delivery: DeliveryConfig,
    /// The name under which this process holds the checkpoint.
    pub holder: String,
    /// Limits of calls to the streams of the table's account and region, shared by the process.
    pub limits: Arc<Limits>,
    /// Limit of posts in the endpoint's region, shared by the process.
    pub post_limits: Arc<PostLimits>,
    /// Where problems are reported.
    pub health: Arc<Health>,
    /// Where events are counted.
    pub telemetry: NotifierTelemetry,
    /// Spreads waits.
    pub random: Arc<Random>,
}
