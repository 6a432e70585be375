//! The streams of one table, with rate limits, a timeout and metrics for every request. Responses
//! adjust the service clock.

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

/// Maximum duration of a request. The timeouts of the AWS clients are shorter.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Length of an average month.
const SECONDS_PER_MONTH: f64 = 30.44 * 86_400.0;

/// The streams of one table within the rate limits of the account.
#[derive(Debug)]
pub struct RateLimitedStreams {
    streams: Arc<dyn Streams>,
    limits: Arc<StreamRateLimits>,
    telemetry: NotifierTelemetry,
    clock: Arc<ServiceClock>,
    /// Number of GetRecords requests since `counted_since`.
    get_records_requests: AtomicU64,
    counted_since: Mutex<Instant>,
    /// Queues of this notifier. Only the first request of each waits for the rate limit of the
    /// account, so that notifiers share the limit evenly.
    list_queue: tokio::sync::Mutex<()>,
    describe_queue: tokio::sync::Mutex<()>,
    read_queue: tokio::sync::Mutex<()>,
}

impl RateLimitedStreams {
    pub fn new(
        streams: Arc<dyn Streams>,
        limits: Arc<StreamRateLimits>,
        telemetry: NotifierTelemetry,
    ) -> Self {
        let [list_queue, describe_queue, read_queue] =
            std::array::from_fn(|_| tokio::sync::Mutex::default());
        Self {
            streams,
            limits,
            telemetry,
            clock: Arc::new(ServiceClock::at_epoch()),
            get_records_requests: AtomicU64::new(0),
            counted_since: Mutex::new(Instant::now()),
            list_queue,
            describe_queue,
            read_queue,
        }
    }

    /// The service's clock, as the responses show it.
    pub fn clock(&self) -> &Arc<ServiceClock> {
        &self.clock
    }

    /// Waits for the response to a request, counts it, and adjusts the service clock to it.
    async fn observe_response<T>(
        &self,
        operation: &'static str,
        action: &'static str,
        request: impl Future<Output = Result<T, StreamError>>,
        service_time: impl Fn(&T) -> Option<UnixSeconds>,
    ) -> Result<T, StreamError> {
        let result = timeout(CALL_TIMEOUT, request)
            .await
            .unwrap_or_else(|elapsed| Err(timeout_error(action, elapsed)));
        let (now, code) = match &result {
            Ok(response) => (service_time(response), "ok"),
            Err(error) => (error.service_time, error.kind.code()),
        };
        self.telemetry.stream_request(operation, code);
        if let Some(now) = now {
            self.clock.observe(now);
        }
        result
    }

    /// Waits in the queue of this notifier, then for the rate limit of the account.
    async fn wait_for_quota(
        &self,
        operation: &'static str,
        queue: &tokio::sync::Mutex<()>,
        limiter: &CallRateLimiter,
    ) {
        let started = Instant::now();
        let _queue = queue.lock().await;
        limiter.acquire().await;
        self.telemetry.stream_rate_limited(operation, started.elapsed());
    }

    /// Reports the rate of GetRecords requests since the previous report, as requests per month.
    pub fn report_poll_rate(&self) {
        let mut since = self.counted_since.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = since.elapsed().as_secs_f64();
        if elapsed > 0.0 {
            let requests = self.get_records_requests.swap(0, Ordering::Relaxed);
            // Far below 2^52, up to which a double counts exactly.
            #[allow(clippy::cast_precision_loss)]
            self.telemetry.set_get_records_per_month(requests as f64 / elapsed * SECONDS_PER_MONTH);
            *since = Instant::now();
        }
    }
}

impl Streams for RateLimitedStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move {
            self.wait_for_quota("list_streams", &self.list_queue, &self.limits.list).await;
            let request = self.streams.list();
            self.observe_response("list_streams", "dynamodb:ListStreams", request, |_| None).await
        })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        filter: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            const OPERATION: &str = "describe_stream";
            if filter == ShardFilter::All {
                self.wait_for_quota(OPERATION, &self.list_queue, &self.limits.list).await;
            }
            self.wait_for_quota(OPERATION, &self.describe_queue, &self.limits.describe).await;
            let request = self.streams.describe(stream, filter, after);
            let time = |page: &StreamPage| Some(page.service_time);
            self.observe_response(OPERATION, "dynamodb:DescribeStream", request, time).await
        })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        start: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            const OPERATION: &str = "get_shard_iterator";
            self.wait_for_quota(OPERATION, &self.read_queue, &self.limits.read).await;
            let request = self.streams.get_iterator(shard, start);
            self.observe_response(OPERATION, "dynamodb:GetShardIterator", request, |_| None).await
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            const OPERATION: &str = "get_records";
            self.wait_for_quota(OPERATION, &self.read_queue, &self.limits.read).await;
            self.get_records_requests.fetch_add(1, Ordering::Relaxed);
            let request = self.streams.get_records(iterator);
            let time = |page: &RecordPage| page.service_time;
            self.observe_response(OPERATION, "dynamodb:GetRecords", request, time).await
        })
    }
}

fn timeout_error(action: &'static str, elapsed: tokio::time::error::Elapsed) -> StreamError {
    let (kind, source) = (StreamErrorKind::Unavailable, Some(elapsed.into()));
    StreamError { action, kind, service_time: None, source }
}
