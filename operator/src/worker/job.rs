//! What one worker is to do, and with whom.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::evaluator::Evaluator;
use super::retention::OnGap;
use crate::backoff::Random;
use crate::delivery::{Bounds, DeadLetterQueue, Policy, PostLimits, Source};
use crate::notifier::Notifier;
use crate::stream::{Follow, Limits};
use crate::telemetry::{Health, NotifierTelemetry};

/// The four that a worker talks to.
#[derive(Debug)]
pub struct Neighbours<S, C, G, K> {
    /// The table's streams.
    pub streams: Arc<S>,
    /// The connections table.
    pub connections: Arc<C>,
    /// The WebSocket API.
    pub gateway: Arc<G>,
    /// The checkpoint's store.
    pub store: Arc<K>,
}

/// What one worker is to do.
#[derive(Debug)]
pub struct Job {
    /// Who is told what.
    pub notifier: Arc<Notifier>,
    /// Where its expressions are evaluated, as those of the whole process.
    pub evaluator: Evaluator,
    /// The ARN of the table.
    pub table: String,
    /// Which of its streams are read.
    pub follow: Follow,
    /// Where reading begins while there is no checkpoint.
    pub begin: Begin,
    /// What to do when records were lost before they were read.
    pub on_gap: OnGap,
    /// How connections are stored.
    pub source: Source,
    /// The WebSocket API's endpoint, named in conditions.
    pub endpoint: String,
    /// Who holds the checkpoint: this process.
    pub holder: String,
    /// How often a quiet shard is asked.
    pub poll_interval: Duration,
    /// How often the streams of the table's account and region are asked, by the whole process.
    pub limits: Arc<Limits>,
    /// How often WebSocket APIs of the endpoint's region are posted to, by the whole process.
    pub post_limits: Arc<PostLimits>,
    /// What is done about messages that do not get through.
    pub policy: Policy,
    /// The queue for the records of lost messages, if there is one, and its ARN.
    pub dead_letters: Option<(String, Arc<dyn DeadLetterQueue>)>,
    /// How much may be under way at once.
    pub bounds: Bounds,
    /// Where troubles are told.
    pub health: Arc<Health>,
    /// Where events are told.
    pub telemetry: NotifierTelemetry,
    /// What spreads the waits.
    pub random: Arc<Random>,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// From now on.
    Latest,
    /// With the oldest record kept.
    TrimHorizon,
    /// With the first record not older than this.
    AtTimestamp(Timestamp),
}

impl Job {
    /// What is read, as conditions name it.
    pub(super) fn stream(&self) -> String {
        match &self.follow {
            Follow::Stream(label) => label.arn(&self.table),
            Follow::Table => format!("{}/stream/*", self.table),
        }
    }
}
