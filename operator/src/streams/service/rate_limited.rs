//! Every call to a table's streams takes its turn among those of the whole process, is counted, and
//! ends within a limit; what time it is, is what the last answer said.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::error::{StreamError, StreamErrorKind};
use super::rate_limits::{CallRateLimiter, StreamRateLimits};
use super::streams::{IteratorStart, RecordPage, ShardFilter, ShardIterator, StreamPage, Streams};
use crate::model::{ShardId, StreamLabel, UnixSeconds};
use crate::telemetry::NotifierTelemetry;
use crate::timing::ServiceClock;

/// No call may take longer; the AWS clients give up sooner.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// An average month.
const SECONDS_PER_MONTH: f64 = 30.44 * 86_400.0;

/// A table's streams, within the limits.
#[derive(Debug)]
pub struct RateLimitedStreams {
    streams: Arc<dyn Streams>,
    limits: Arc<StreamRateLimits>,
    telemetry: NotifierTelemetry,
    clock: Arc<ServiceClock>,
    /// GetRecords calls since this moment.
    reads: AtomicU64,
    since: Mutex<Instant>,
    /// One call of this notifier at a time waits among those of others, so that they take turns.
    list: tokio::sync::Mutex<()>,
    describe: tokio::sync::Mutex<()>,
    read: tokio::sync::Mutex<()>,
}

impl RateLimitedStreams {
    /// Calls to `streams` within `limits`.
    pub fn new(
        streams: Arc<dyn Streams>,
        limits: Arc<StreamRateLimits>,
        telemetry: NotifierTelemetry,
    ) -> Self {
        let since = Mutex::new(Instant::now());
        let reads = AtomicU64::new(0);
        let [list, describe, read] = std::array::from_fn(|_| tokio::sync::Mutex::default());
        let clock = Arc::new(ServiceClock::new());
        Self { streams, limits, telemetry, clock, reads, since, list, describe, read }
    }

    /// The service's clock, by all that it answered.
    pub fn clock(&self) -> &Arc<ServiceClock> {
        &self.clock
    }

    /// Waits for an answer, counts it, and hears what time it is.
    async fn observe_response<T>(
        &self,
        operation: &'static str,
        action: &'static str,
        call: impl Future<Output = Result<T, StreamError>>,
        told: impl Fn(&T) -> Option<UnixSeconds>,
    ) -> Result<T, StreamError> {
        let answer = timeout(CALL_TIMEOUT, call)
            .await
            .unwrap_or_else(|elapsed| Err(timeout_error(action, elapsed)));
        let (now, code) = match &answer {
            Ok(answer) => (told(answer), "ok"),
            Err(error) => (error.service_time, error.kind.code()),
        };
        self.telemetry.stream_request(operation, code);
        if let Some(now) = now {
            self.clock.observe(now);
        }
        answer
    }

    /// Waits for a call's turn, among those of this notifier and then among those of all.
    async fn wait_for_quota(
        &self,
        call: &'static str,
        own: &tokio::sync::Mutex<()>,
        budget: &CallRateLimiter,
    ) {
        let begun = Instant::now();
        let _own = own.lock().await;
        budget.acquire().await;
        self.telemetry.rate_limited(call, begun.elapsed());
    }

    /// Tells how many GetRecords calls the pace since the last time comes to in a month.
    pub fn report_poll_rate(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = since.elapsed().as_secs_f64();
        if elapsed > 0.0 {
            let calls = self.reads.swap(0, Ordering::Relaxed);
            // Far below the 2^52 up to which a double counts exactly.
            #[allow(clippy::cast_precision_loss)]
            self.telemetry.get_records_per_month(calls as f64 / elapsed * SECONDS_PER_MONTH);
            *since = Instant::now();
        }
    }
}

impl Streams for RateLimitedStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move {
            self.wait_for_quota("list_streams", &self.list, &self.limits.list).await;
            let call = self.streams.list();
            self.observe_response("list_streams", "dynamodb:ListStreams", call, |_| None).await
        })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            if listed == ShardFilter::All {
                self.wait_for_quota("describe_stream", &self.list, &self.limits.list).await;
            }
            self.wait_for_quota("describe_stream", &self.describe, &self.limits.describe).await;
            let call = self.streams.describe(stream, listed, after);
            let time = |page: &StreamPage| Some(page.service_time);
            self.observe_response("describe_stream", "dynamodb:DescribeStream", call, time).await
        })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            self.wait_for_quota("get_shard_iterator", &self.read, &self.limits.read).await;
            let call = self.streams.get_iterator(shard, from);
            self.observe_response("get_shard_iterator", "dynamodb:GetShardIterator", call, |_| None)
                .await
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            self.wait_for_quota("get_records", &self.read, &self.limits.read).await;
            self.reads.fetch_add(1, Ordering::Relaxed);
            let call = self.streams.get_records(iterator);
            let time = |page: &RecordPage| page.service_time;
            self.observe_response("get_records", "dynamodb:GetRecords", call, time).await
        })
    }
}

/// A call that took too long.
fn timeout_error(action: &'static str, elapsed: tokio::time::error::Elapsed) -> StreamError {
    let (kind, source) = (StreamErrorKind::Unavailable, Some(elapsed.into()));
    StreamError { action, kind, service_time: None, source }
}
