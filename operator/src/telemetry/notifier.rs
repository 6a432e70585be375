//! Logs and metrics of one notifier.
//!
//! Each event is one method, which both logs and counts. Logs and metrics therefore use the same words
//! for the same event. Neither contains item values or message bodies.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tracing::{debug, error, info, warn};

use super::error_chain::error_chain;
use super::log_throttle::LogThrottle;
use super::metrics::Metrics;
use super::outcomes::{DropReason, LookupKind, RecordCounts};
use crate::model::{KeySchema, SequenceNumber, ShardId, StreamLabel};
use crate::telemetry::metrics::family::{DefinedFamily, Series as _};
use crate::telemetry::metrics::labels::{Labels, NotifierLabels};

/// Logs and metrics of one notifier. Clones share their series and log throttles.
#[derive(Clone, Debug)]
pub struct NotifierTelemetry {
    metrics: Metrics,
    labels: NotifierLabels,
    posts: Arc<PostMetrics>,
    invalid_log: Arc<LogThrottle>,
    malformed_log: Arc<LogThrottle>,
    dropped_log: Arc<LogThrottle>,
}

/// Series that every post updates. They are resolved once, because a lookup by labels is slow.
#[derive(Debug)]
struct PostMetrics {
    duration: Histogram,
    rate_limit_wait: Counter<f64, AtomicU64>,
    queued_messages: Gauge,
    queued_bytes: Gauge,
    delivery_latency: Histogram,
}

/// Counts a message as queued until it is dropped.
#[derive(Debug)]
pub struct QueuedGuard {
    posts: Arc<PostMetrics>,
    bytes: i64,
}

impl Drop for QueuedGuard {
    fn drop(&mut self) {
        self.posts.queued_messages.dec();
        self.posts.queued_bytes.dec_by(self.bytes);
    }
}

impl NotifierTelemetry {
    /// Creates the telemetry of `namespace/name` and each of its counters that does not exist yet.
    pub fn new(metrics: Metrics, namespace: &str, name: &str) -> Self {
        let labels = NotifierLabels::new(namespace, name);
        metrics.create_counters(&labels);
        let posts = PostMetrics {
            duration: metrics.post_duration.get_or_create(&labels, []),
            rate_limit_wait: metrics.post_rate_limit_wait.get_or_create(&labels, []),
            queued_messages: metrics.queued_messages.get_or_create(&labels, []),
            queued_bytes: metrics.queued_bytes.get_or_create(&labels, []),
            delivery_latency: metrics.delivery_latency.get_or_create(&labels, []),
        };
        Self {
            metrics,
            labels,
            posts: Arc::new(posts),
            invalid_log: Arc::default(),
            malformed_log: Arc::default(),
            dropped_log: Arc::default(),
        }
    }

    /// Namespace and name of the notifier.
    pub fn notifier(&self) -> (String, String) {
        (self.labels.namespace.clone(), self.labels.name.clone())
    }

    /// The worker claimed the checkpoint, which has positions of this number of shards.
    pub fn checkpoint_claimed(&self, epoch: u64, shards: usize) {
        let NotifierLabels { namespace, name } = &self.labels;
        info!(%namespace, %name, epoch, shards, "checkpoint claimed");
    }

    /// The spec names another stream or table than the checkpoint.
    pub fn checkpoint_of_other_stream(&self, before: &str, now: &str) {
        let NotifierLabels { namespace, name } = &self.labels;
        warn!(
            %namespace, %name, before, now,
            "checkpoint belongs to another stream, starting at startingPosition"
        );
    }

    /// Another holder claimed the checkpoint, and the worker stops.
    pub fn checkpoint_taken_over(&self, error: &dyn Error) {
        let NotifierLabels { namespace, name } = &self.labels;
        let error = error_chain(error);
        error!(%namespace, %name, error, "checkpoint claimed by another operator, worker stopped");
        self.count(&self.metrics.checkpoint_claims_lost, [], 1);
    }

    /// A write of the checkpoint ended.
    pub fn checkpoint_write(&self, is_success: bool) {
        let result = if is_success { "success" } else { "error" };
        self.count(&self.metrics.checkpoint_writes, [result], 1);
    }

    /// The worker stopped; `drained` is `false` if it left posts in flight for the next worker.
    pub fn worker_stopped(&self, drained: bool) {
        let NotifierLabels { namespace, name } = &self.labels;
        info!(%namespace, %name, drained, "worker stopped");
    }

    /// A task of the worker panicked.
    pub fn worker_panicked(&self) {
        let NotifierLabels { namespace, name } = &self.labels;
        error!(%namespace, %name, "worker task panicked, restarting from the checkpoint");
    }

    /// Reading of a shard began at this position.
    pub fn shard_opened(&self, shard: &ShardId, from: &dyn std::fmt::Display) {
        let NotifierLabels { namespace, name } = &self.labels;
        info!(%namespace, %name, %shard, %from, "shard opened");
    }

    /// All records of a shard are read and settled.
    pub fn shard_finished(&self, shard: &ShardId) {
        let NotifierLabels { namespace, name } = &self.labels;
        info!(%namespace, %name, %shard, "shard finished");
    }

    /// Records of `seconds` were lost before they were read. `shard` is `None` if it is unknown.
    pub fn data_gap(
        &self,
        stream: &StreamLabel,
        shard: Option<&ShardId>,
        reason: &str,
        seconds: u64,
    ) {
        let NotifierLabels { namespace, name } = &self.labels;
        let shard = shard.map_or("(any)", |shard| &shard.name);
        error!(%namespace, %name, %stream, shard, reason, seconds, "records lost in a data gap");
        self.count(&self.metrics.data_gaps, [], 1);
        self.count(&self.metrics.data_gap_seconds, [], seconds);
    }

    /// The worker stopped because of a data gap.
    pub fn halted_on_gap(&self) {
        let NotifierLabels { namespace, name } = &self.labels;
        error!(%namespace, %name, "worker stopped after a data gap, because onGap is Stop");
    }

    /// A request to the stream ended with this code, a value of the metric's label.
    pub fn stream_request(&self, operation: &'static str, code: &'static str) {
        self.count(&self.metrics.stream_requests, [operation, code], 1);
    }

    /// A request to the stream waited for the rate limit.
    pub fn stream_rate_limited(&self, operation: &'static str, wait: Duration) {
        if !wait.is_zero()
            && let Some(total) = self.metrics.stream_rate_limit_wait.get(&self.labels, [operation])
        {
            total.inc_by(wait.as_secs_f64());
        }
    }

    /// Sets the number of GetRecords requests in a month at the present request rate.
    pub fn set_get_records_per_month(&self, requests: f64) {
        self.metrics.get_records_per_month.get_or_create(&self.labels, []).set(requests);
    }

    /// Removes the series of [`Self::set_get_records_per_month`], because reading ended.
    pub fn clear_get_records_per_month(&self) {
        self.metrics.get_records_per_month.remove(&self.labels);
    }

    /// Sets the age of the last record read, in the shard that is furthest behind.
    pub fn set_iterator_age(&self, seconds: i64) {
        self.metrics.iterator_age.get_or_create(&self.labels, []).set(seconds.max(0));
    }

    /// Removes the series of [`Self::set_iterator_age`], because reading ended.
    pub fn clear_iterator_age(&self) {
        self.metrics.iterator_age.remove(&self.labels);
    }

    /// Records without keys, sequence number, time or a known event name were skipped.
    pub fn malformed_records(&self, shard: &ShardId, records: usize) {
        let NotifierLabels { namespace, name } = &self.labels;
        if let Some(suppressed) = self.malformed_log.try_acquire() {
            warn!(%namespace, %name, %shard, records, suppressed, "malformed records skipped");
        }
        self.count(&self.metrics.records, ["malformed"], records as u64);
    }

    /// Records of a page were evaluated.
    pub fn records_read(&self, counts: &RecordCounts) {
        let RecordCounts { skipped, before_start, matched } = *counts;
        for (result, records) in
            [("skipped", skipped), ("before_start", before_start), ("matched", matched)]
        {
            self.count(&self.metrics.records, [result], records);
        }
    }

    /// Expressions were evaluated for this time.
    pub fn expressions_evaluated(&self, elapsed: Duration) {
        if let Some(total) = self.metrics.expression_evaluation.get(&self.labels, []) {
            total.inc_by(elapsed.as_secs_f64());
        }
    }

    /// An expression failed on a record. `keys` are the names of the table's key attributes, and
    /// `problem` must contain no item values. Returns `false` if the log throttle suppressed it.
    pub fn invalid_record(
        &self,
        sequence_number: &SequenceNumber,
        keys: &KeySchema,
        field: &str,
        problem: &str,
    ) -> bool {
        let NotifierLabels { namespace, name } = &self.labels;
        self.count(&self.metrics.records, ["invalid"], 1);
        let Some(suppressed) = self.invalid_log.try_acquire() else {
            return false;
        };
        warn!(
            %namespace, %name, %sequence_number, %keys, field, problem, suppressed,
            "invalid record skipped"
        );
        true
    }

    /// A post ended with this outcome, a value of the metric's label.
    pub fn posted(&self, outcome: &'static str, elapsed: Duration) {
        self.count(&self.metrics.post_attempts, [outcome], 1);
        self.posts.duration.observe(elapsed.as_secs_f64());
    }

    /// A post waited for the rate limit of its region.
    pub fn post_rate_limited(&self, wait: Duration) {
        if !wait.is_zero() {
            self.posts.rate_limit_wait.inc_by(wait.as_secs_f64());
        }
    }

    /// Counts a message of this size as queued until the guard is dropped.
    pub fn message_queued(&self, kib: u32) -> QueuedGuard {
        let (posts, bytes) = (self.posts.clone(), i64::from(kib) * 1024);
        posts.queued_messages.inc();
        posts.queued_bytes.inc_by(bytes);
        QueuedGuard { posts, bytes }
    }

    /// API Gateway accepted a message, this many seconds after the item changed.
    pub fn message_delivered(&self, latency_seconds: i64) {
        self.count(&self.metrics.messages, ["delivered"], 1);
        self.posts.delivery_latency.observe(latency_seconds.max(0) as f64);
    }

    /// A message was not delivered, because its connection is closed.
    pub fn connection_gone(&self) {
        self.count(&self.metrics.messages, ["gone"], 1);
    }

    /// A message was dropped.
    pub fn message_dropped(
        &self,
        reason: DropReason,
        connection: &str,
        sequence_number: &SequenceNumber,
    ) {
        let NotifierLabels { namespace, name } = &self.labels;
        let reason = reason.metric_label();
        let connection = shorten(connection);
        debug!(%namespace, %name, connection, %sequence_number, reason, "message dropped");
        // A single slow client can cause thousands of drops.
        if let Some(suppressed) = self.dropped_log.try_acquire() {
            warn!(
                %namespace, %name, connection, %sequence_number, reason, suppressed,
                "messages dropped"
            );
        }
        self.count(&self.metrics.messages, [reason], 1);
    }

    /// The operator disconnected a slow client; `outcome` is that of the request.
    pub fn client_disconnected(&self, connection: &str, outcome: &'static str) {
        let NotifierLabels { namespace, name } = &self.labels;
        let connection = shorten(connection);
        warn!(%namespace, %name, connection, outcome, "disconnect of a slow client requested");
    }

    /// A dead letter was sent, with the whole record or without its images.
    pub fn dead_letter(&self, is_truncated: bool) {
        let outcome = if is_truncated { "truncated" } else { "sent" };
        self.count(&self.metrics.dead_letters, [outcome], 1);
    }

    /// A dead letter was dropped, because its queue did not accept it in time.
    pub fn dead_letter_lost(&self, sequence_number: &SequenceNumber) {
        let NotifierLabels { namespace, name } = &self.labels;
        error!(%namespace, %name, %sequence_number, "dead letter lost");
        self.count(&self.metrics.dead_letters, ["failed"], 1);
    }

    /// The connections of a record were looked up.
    pub fn connections_looked_up(&self, kind: LookupKind) {
        self.count(&self.metrics.connection_lookups, [kind.metric_label()], 1);
    }

    /// A lookup skipped rows without a usable connection id or table key, and expired rows.
    pub fn rows_skipped(&self, unusable: u64, expired: u64) {
        if unusable > 0 {
            self.count(&self.metrics.messages, ["invalid_row"], unusable);
        }
        if expired > 0 {
            self.count(&self.metrics.stale_connection_rows, ["expired"], expired);
        }
    }

    /// The row of a closed connection was deleted, or kept because it was written again.
    pub fn row_deleted(&self, connection: &str, is_deleted: bool) {
        let NotifierLabels { namespace, name } = &self.labels;
        let connection = shorten(connection);
        let outcome = if is_deleted { "deleted" } else { "changed" };
        debug!(%namespace, %name, connection, outcome, "row of closed connection processed");
        self.count(&self.metrics.stale_connection_rows, [outcome], 1);
    }

    /// The row of a closed connection could not be deleted.
    pub fn row_not_deleted(&self, connection: &str, error: &dyn Error) {
        let NotifierLabels { namespace, name } = &self.labels;
        let connection = shorten(connection);
        let error = error_chain(error);
        warn!(%namespace, %name, connection, error, "row of closed connection not deleted");
    }

    /// A request failed, and the operator retries it.
    pub fn request_failed(&self, error: &dyn Error) {
        let NotifierLabels { namespace, name } = &self.labels;
        warn!(%namespace, %name, error = error_chain(error), "request failed, retrying");
    }

    /// Increments a counter, unless the notifier was removed. A task that ends after the removal must
    /// not create the series again.
    fn count<const N: usize, L: Labels<N>>(
        &self,
        family: &DefinedFamily<N, L, Counter>,
        values: [&'static str; N],
        by: u64,
    ) {
        if let Some(counter) = family.get(&self.labels, values) {
            counter.inc_by(by);
        }
    }
}

/// Shortens a connection id for the log: with the endpoint, the whole id is enough to post to a client.
fn shorten(connection: &str) -> String {
    let mut short: String = connection.chars().take(6).collect();
    short.push('…');
    short
}
