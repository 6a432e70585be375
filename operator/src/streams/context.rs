//! State that the tasks of a stream consumer share, and the state of a task that reads one shard.

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

/// State that all tasks of a stream consumer share.
#[derive(Debug)]
pub struct ConsumerContext {
    pub config: ConsumerConfig,
    /// Receives the records.
    pub sink: Arc<dyn RecordSink>,
    /// Start time of the notifier. Records before it count as read. `None` at `TrimHorizon`.
    pub skip_before: Option<UnixSeconds>,
    /// One permit for each page that the sink may process at once.
    pub page_permits: Semaphore,
    pub poll_coalescer: PollCoalescer,
    /// The service's clock.
    pub clock: Arc<ServiceClock>,
    pub lister: ShardLister,
    pub health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    pub rng: Arc<JitterRng>,
    /// Stops every task. The sink uses the same token.
    pub stop: CancellationToken,
    /// Whether a data gap stopped the consumer.
    pub halted_on_gap: AtomicBool,
}

impl ConsumerContext {
    /// Lists the shards until the future is dropped.
    pub async fn run_lister(&self, streams: &RateLimitedStreams) -> Infallible {
        let Self { config, health, telemetry, rng, .. } = self;
        let stream_name = &config.stream_name();
        let source = &config.source;
        self.lister.run(ListerParams { streams, source, stream_name, health, telemetry, rng }).await
    }

    /// Reports that up to `lost` seconds of records were lost before they were read. `shard` is
    /// `None` if the loss can affect any shard. Returns whether the consumer continues.
    pub fn report_gap(
        &self,
        stream: &StreamLabel,
        shard: Option<&ShardId>,
        cause: &'static str,
        lost: u64,
    ) -> bool {
        let ConsumerConfig { table, stop_on_gap, .. } = &self.config;
        self.telemetry.data_gap(stream, shard, cause, lost);
        self.health.report_data_gap(problems::data_gap(&stream.arn(table), *stop_on_gap));
        if !stop_on_gap || fault!(DataGapStopIgnored) {
            return true;
        }
        self.halted_on_gap.store(true, Ordering::Relaxed);
        self.stop.cancel();
        false
    }
}

/// State of the task that reads one shard.
#[derive(Debug)]
pub struct ShardTask {
    pub reader: ShardReader,
    /// Key attributes of the table.
    pub keys: KeySchema,
    /// Settled position of the shard.
    pub progress: Arc<ShardProgress>,
}
