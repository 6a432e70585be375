//! Consumes the streams of one table: every shard in order, a child after its parent, a stream after
//! those before it. Hands each page of records to a [`RecordSink`], and settles a position only once
//! the sink has completed every record up to it.

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

/// Where a consumer begins, and how its tasks report.
#[derive(Debug)]
pub struct ConsumerStart {
    /// Where and when reading began, from the checkpoint.
    pub start: StartPoint,
    /// The listing to begin with.
    pub listing: Listing,
    /// The positions of the checkpoint, which the consumer keeps up to date.
    pub positions: Arc<Positions>,
    /// Where problems are reported.
    pub health: Arc<Health>,
    /// Where events are counted.
    pub telemetry: NotifierTelemetry,
    /// Spreads waits.
    pub rng: Arc<JitterRng>,
    /// Stops the consumer. It is shared with the sink.
    pub stop: CancellationToken,
}

/// The consumer of one notifier.
#[derive(Debug)]
pub struct StreamConsumer {
    streams: Arc<RateLimitedStreams>,
    context: Arc<ConsumerContext>,
    positions: Arc<Positions>,
    coordinator: ShardCoordinator,
}

impl StreamConsumer {
    /// A consumer that has not read anything yet.
    pub fn new(
        streams: Arc<RateLimitedStreams>,
        config: ConsumerConfig,
        sink: Arc<dyn RecordSink>,
        from: ConsumerStart,
    ) -> Self {
        let ConsumerStart { start, listing, positions, health, telemetry, rng: random, stop } =
            from;
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
            rng: random,
            stop,
            halted_on_gap: AtomicBool::new(false),
        });
        let coordinator =
            ShardCoordinator::new(streams.clone(), context.clone(), positions.clone(), start);
        Self { streams, context, positions, coordinator }
    }

    /// Consumes until it is stopped. Shards of the first listing may have had records since
    /// `read_at`.
    ///
    /// # Errors
    ///
    /// A task panicked, which is a bug. Its records must be read again from the checkpoint.
    pub async fn run(&mut self, read_at: UnixSeconds) -> Result<(), Panicked> {
        let Self { streams, context, positions, coordinator: reading } = self;
        tokio::select! {
            biased;
            never = context.run_lister(streams) => match never {},
            never = report_iterator_age(positions, &context.clock, &context.telemetry) => match never {},
            ended = reading.run(read_at) => ended,
        }
    }

    /// Waits for the tasks of all shards, after a stop.
    pub async fn drain(&mut self) {
        self.coordinator.drain().await;
    }

    /// Whether a data gap stopped the consumer.
    pub fn is_halted(&self) -> bool {
        self.context.halted_on_gap.load(Ordering::Relaxed)
    }
}
