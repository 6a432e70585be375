//! State that the stream consumer's tasks share, and the state of one shard's task.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::config::ConsumerConfig;
use super::poll_interval::PollCoalescer;
use super::problems;
use super::shard_reader::ShardReader;
use crate::checkpoint::ShardProgress;
use crate::model::{KeySchema, RecordSink, ShardId, StreamLabel, UnixSeconds};
use crate::streams::listing::shard_lister::{ListerParams, ShardLister};
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::telemetry::{Health, NotifierTelemetry};
use crate::timing::{JitterRng, ServiceClock};

/// State that all tasks of one stream consumer share.
#[derive(Debug)]
pub struct ConsumerContext {
    /// What to consume, and how.
    pub config: ConsumerConfig,
    /// Takes the records.
    pub sink: Arc<dyn RecordSink>,
    /// Records before this moment count as read.
    pub skip_before: Option<UnixSeconds>,
    /// Pages that may be in memory at once.
    pub page_permits: Semaphore,
    /// Polls quiet shards together.
    pub poll_coalescer: PollCoalescer,
    /// The service's clock.
    pub clock: Arc<ServiceClock>,
    /// Lists the shards.
    pub lister: ShardLister,
    /// Where problems are reported.
    pub health: Arc<Health>,
    /// Where events are counted.
    pub telemetry: NotifierTelemetry,
    /// Spreads waits.
    pub rng: Arc<JitterRng>,
    /// Stops every task. Shared with the sink.
    pub stop: CancellationToken,
    /// Whether a data gap stopped the consumer.
    pub halted_on_gap: AtomicBool,
}

impl ConsumerContext {
    /// Lists the shards until it is dropped.
    pub async fn run_lister(&self, streams: &RateLimitedStreams) -> Infallible {
        let Self { config, health, telemetry, rng: random, .. } = self;
        let stream = &config.stream_name();
        let follow = &config.source;
        self.lister.run(ListerParams { streams, follow, stream, health, telemetry, random }).await
    }

    /// Reports that records of a shard, or of any if there is none, were lost before they were read,
    /// and for how many seconds. Returns `true` if the consumer continues.
    pub fn report_gap(
        &self,
        stream: &StreamLabel,
        shard: Option<&ShardId>,
        why: &'static str,
        lost: u64,
    ) -> bool {
        let ConsumerConfig { table, stop_on_gap, .. } = &self.config;
        self.telemetry.gap(stream, shard, why, lost);
        self.health.gap(problems::data_gap(&stream.arn(table), *stop_on_gap));
        if !stop_on_gap || fault!(DataGapStopIgnored) {
            return true;
        }
        self.halted_on_gap.store(true, Ordering::Relaxed);
        self.stop.cancel();
        false
    }
}

/// The task that consumes one shard.
#[derive(Debug)]
pub struct ShardTask {
    /// Reads the shard from its current position.
    pub reader: ShardReader,
    /// The key attributes of the table.
    pub keys: KeySchema,
    /// What is settled.
    pub progress: Arc<ShardProgress>,
}
