//! Every call to a table's streams takes its turn among those of the whole process, is counted, and
//! ends within a limit; what time it is, is what the last answer said.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::time::{Instant, timeout};

use super::error::{StreamError, StreamErrorKind};
use super::rate_limits::{Budget, Limits};
use super::streams::{Listed, ReadFrom, RecordPage, ShardIterator, StreamPage, Streams};
use crate::model::{ShardId, StreamLabel, UnixSeconds};
use crate::telemetry::NotifierTelemetry;
use crate::timing::ServiceClock;

/// No call may take longer; the AWS clients give up sooner.
const CALL_LIMIT: Duration = Duration::from_secs(30);

/// An average month.
const MONTH_SECONDS: f64 = 30.44 * 86_400.0;

/// A table's streams, within the limits.
#[derive(Debug)]
pub struct Calls {
    streams: Arc<dyn Streams>,
    limits: Arc<Limits>,
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

impl Calls {
    /// Calls to `streams` within `limits`.
    pub fn new(
        streams: Arc<dyn Streams>,
        limits: Arc<Limits>,
        telemetry: NotifierTelemetry,
    ) -> Self {
        let since = Mutex::new(Instant::now());
        let reads = AtomicU64::new(0);
        let [list, describe, read] = std::array::from_fn(|_| tokio::sync::Mutex::default());
        let clock = Arc::new(ServiceClock::unknown());
        Self { streams, limits, telemetry, clock, reads, since, list, describe, read }
    }

    /// The service's clock, by all that it answered.
    pub fn clock(&self) -> &Arc<ServiceClock> {
        &self.clock
    }

    /// Waits for an answer, counts it, and hears what time it is.
    async fn answer<T>(
        &self,
        operation: &'static str,
        action: &'static str,
        call: impl Future<Output = Result<T, StreamError>>,
        told: impl Fn(&T) -> Option<UnixSeconds>,
    ) -> Result<T, StreamError> {
        let answer =
            timeout(CALL_LIMIT, call).await.unwrap_or_else(|elapsed| Err(late(action, elapsed)));
        let (now, code) = match &answer {
            Ok(answer) => (told(answer), "ok"),
            Err(error) => (error.service_time, error.kind.code()),
        };
        self.telemetry.stream_request(operation, code);
        if let Some(now) = now {
            self.clock.heard(now);
        }
        answer
    }

    /// Waits for a call's turn, among those of this notifier and then among those of all.
    async fn turn(&self, call: &'static str, own: &tokio::sync::Mutex<()>, budget: &Budget) {
        let begun = Instant::now();
        let _own = own.lock().await;
        budget.take().await;
        self.telemetry.rate_limited(call, begun.elapsed());
    }

    /// Tells how many GetRecords calls the pace since the last time comes to in a month.
    pub fn tell_pace(&self) {
        let mut since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        let elapsed = since.elapsed().as_secs_f64();
        if elapsed > 0.0 {
            let calls = self.reads.swap(0, Ordering::Relaxed);
            // Far below the 2^52 up to which a double counts exactly.
            #[allow(clippy::cast_precision_loss)]
            self.telemetry.get_records_per_month(calls as f64 / elapsed * MONTH_SECONDS);
            *since = Instant::now();
        }
    }
}

impl Streams for Calls {
    fn streams(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move {
            self.turn("list_streams", &self.list, &self.limits.list).await;
            let call = self.streams.streams();
            self.answer("list_streams", "dynamodb:ListStreams", call, |_| None).await
        })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: Listed<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            if listed == Listed::All {
                self.turn("describe_stream", &self.list, &self.limits.list).await;
            }
            self.turn("describe_stream", &self.describe, &self.limits.describe).await;
            let call = self.streams.describe(stream, listed, after);
            let time = |page: &StreamPage| Some(page.service_time);
            self.answer("describe_stream", "dynamodb:DescribeStream", call, time).await
        })
    }

    fn iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a ReadFrom,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            self.turn("get_shard_iterator", &self.read, &self.limits.read).await;
            let call = self.streams.iterator(shard, from);
            self.answer("get_shard_iterator", "dynamodb:GetShardIterator", call, |_| None).await
        })
    }

    fn records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            self.turn("get_records", &self.read, &self.limits.read).await;
            self.reads.fetch_add(1, Ordering::Relaxed);
            let call = self.streams.records(iterator);
            let time = |page: &RecordPage| page.service_time;
            self.answer("get_records", "dynamodb:GetRecords", call, time).await
        })
    }
}

/// A call that took too long.
fn late(action: &'static str, elapsed: tokio::time::error::Elapsed) -> StreamError {
    let (kind, source) = (StreamErrorKind::Unavailable, Some(elapsed.into()));
    StreamError { action, kind, service_time: None, source }
}
