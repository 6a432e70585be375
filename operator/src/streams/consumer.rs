//! Consumes the streams of one table and passes each page of records to a [`RecordSink`].
//!
//! It reads a shard in order, a child shard after its parent, and a stream after all earlier
//! streams. It settles a position only once the sink has completed every record up to it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::config::ConsumerConfig;
use super::context::ConsumerContext;
use super::coordinator::{Panicked, ShardCoordinator};
use super::iterator_age::report_iterator_age;
use super::listing::Listing;
use super::poll_interval::PollCoalescer;
use crate::checkpoint::{Positions, StartPoint};
use crate::model::{RecordSink, UnixSeconds};
use crate::streams::listing::shard_lister::ShardLister;
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::telemetry::{Health, NotifierTelemetry};
use crate::timing::JitterRng;

/// State that a consumer begins with, and the handles that its tasks use.
#[derive(Debug)]
pub struct ConsumerStart {
    /// Start position and start time, from the checkpoint.
    pub start: StartPoint,
    /// The first listing.
    pub listing: Listing,
    /// Positions from the checkpoint. The consumer updates them.
    pub positions: Arc<Positions>,
    pub health: Arc<Health>,
    pub telemetry: NotifierTelemetry,
    pub rng: Arc<JitterRng>,
    /// Stops the consumer. The sink uses the same token.
    pub stop: CancellationToken,
}

/// The stream consumer of one notifier.
#[derive(Debug)]
pub struct StreamConsumer {
    streams: Arc<RateLimitedStreams>,
    context: Arc<ConsumerContext>,
    positions: Arc<Positions>,
    coordinator: ShardCoordinator,
}

impl StreamConsumer {
    /// Creates a consumer, which reads nothing until it runs.
    pub fn new(
        streams: Arc<RateLimitedStreams>,
        config: ConsumerConfig,
        sink: Arc<dyn RecordSink>,
        start: ConsumerStart,
    ) -> Self {
        let ConsumerStart { start, listing, positions, health, telemetry, rng, stop } = start;
        let context = Arc::new(ConsumerContext {
            page_permits: Semaphore::new(config.max_pages),
            config,
            sink,
            skip_before: start.skip_before(),
            poll_coalescer: PollCoalescer::default(),
            clock: streams.clock().clone(),
            lister: ShardLister::new(listing),
            health,
            telemetry,
            rng,
            stop,
            halted_on_gap: AtomicBool::new(false),
        });
        let coordinator =
            ShardCoordinator::new(streams.clone(), context.clone(), positions.clone(), start);
        Self { streams, context, positions, coordinator }
    }

    /// Consumes until the stop token is cancelled. Shards of the first listing can have had records
    /// since `read_at`.
    ///
    /// # Errors
    ///
    /// A task panicked, which is a bug in the operator. Unsettled records must be read again from
    /// the checkpoint.
    pub async fn run(&mut self, read_at: UnixSeconds) -> Result<(), Panicked> {
        let Self { streams, context, positions, coordinator } = self;
        tokio::select! {
            biased;
            never = context.run_lister(streams) => match never {},
            never = report_iterator_age(positions, &context.clock, &context.telemetry) => match never {},
            result = coordinator.run(read_at) => result,
        }
    }

    /// Waits until the tasks of all shards have ended. Call it after the stop token was cancelled.
    pub async fn drain(&mut self) {
        self.coordinator.drain().await;
    }

    /// Whether a data gap stopped the consumer.
    pub fn is_halted(&self) -> bool {
        self.context.halted_on_gap.load(Ordering::Relaxed)
    }
}
