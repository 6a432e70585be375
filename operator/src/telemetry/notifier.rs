//! What one notifier tells: each event is a method that logs and counts, so that the words of the
//! logs and the metrics are the same.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use super::metrics::Metrics;
use crate::model::{KeySchema, SequenceNumber, ShardId, StreamLabel};
use crate::telemetry::metrics::family::{DefinedFamily, Series as _};
use crate::telemetry::metrics::labels::{Labels, NotifierLabels};

/// How often the same is said of many records.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Why a message was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DropReason {
    /// Nobody can say who or what is told of the change.
    Invalid,
    /// It is over 128 KB.
    TooLarge,
    /// It was tried for as long as it may be.
    Expired,
    /// It was tried as often as it may be.
    Attempts,
    /// Its client does not read, and a newer message of the same item took its place.
    Superseded,
    /// Its client does not read, and too much waits for it.
    Overflow,
    /// Its client does not read, and was disconnected.
    Disconnected,
}

impl DropReason {
    /// As dead letters name it.
    pub fn reason(self) -> &'static str {
        match self {
            Self::Invalid => "Invalid",
            Self::TooLarge => "TooLarge",
            Self::Expired => "Expired",
            Self::Attempts => "Attempts",
            Self::Superseded => "Superseded",
            Self::Overflow => "Overflow",
            Self::Disconnected => "Disconnected",
        }
    }

    /// Value of the metric's label.
    fn metric_label(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::Expired => "expired",
            Self::Attempts => "attempts_exhausted",
            Self::Superseded => "superseded",
            Self::Overflow => "overflow",
            Self::Disconnected => "disconnected",
        }
    }
}

/// How a record came to its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupKind {
    /// By a query.
    Query,
    /// By a scan of every row.
    Scan,
    /// By a lookup that another record began.
    Shared,
    /// By one that began before the record was read, as `connections.cacheSeconds` allows.
    Cached,
}

/// What became of the records of a page.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Of no interest to the notifier.
    pub skipped: u64,
    /// Older than the moment reading began.
    pub before_start: u64,
    /// Somebody is told.
    pub matched: u64,
}

/// The telemetry of one notifier.
#[derive(Clone, Debug)]
pub struct NotifierTelemetry {
    metrics: Metrics,
    labels: NotifierLabels,
    posts: Arc<PostMetrics>,
    invalid_log: Arc<LogThrottle>,
    malformed_log: Arc<LogThrottle>,
    dropped_log: Arc<LogThrottle>,
}

/// The metrics of a notifier that are touched with each post.
#[derive(Debug)]
struct PostMetrics {
    duration: Histogram,
    wait_seconds: Counter<f64, AtomicU64>,
    waiting: Gauge,
    waiting_bytes: Gauge,
    age: Histogram,
}

/// A message that waits for its connection.
#[derive(Debug)]
pub struct QueuedGuard {
    posting: Arc<PostMetrics>,
    bytes: i64,
}

impl Drop for QueuedGuard {
    fn drop(&mut self) {
        self.posting.waiting.dec();
        self.posting.waiting_bytes.dec_by(self.bytes);
    }
}

impl NotifierTelemetry {
    /// The telemetry of `namespace/name`.
    pub fn new(metrics: Metrics, namespace: &str, name: &str) -> Self {
        let labels = NotifierLabels::new(namespace, name);
        metrics.begin(&labels);
        let posting = PostMetrics {
            duration: metrics.post_duration.get_or_create(&labels, []),
            wait_seconds: metrics.post_rate_limit_wait.get_or_create(&labels, []),
            waiting: metrics.queued_messages.get_or_create(&labels, []),
            waiting_bytes: metrics.queued_bytes.get_or_create(&labels, []),
            age: metrics.delivery_latency.get_or_create(&labels, []),
        };
        let posts = Arc::new(posting);
        Self {
            metrics,
            labels,
            posts,
            invalid_log: Arc::default(),
            malformed_log: Arc::default(),
            dropped_log: Arc::default(),
        }
    }

    /// Its namespace and name.
    pub fn notifier(&self) -> (String, String) {
        (self.labels.namespace.clone(), self.labels.name.clone())
    }

    /// Reading begins, or goes on.
    pub fn claimed(&self, epoch: u64, shards: usize) {
        let NotifierLabels { namespace, name } = &self.labels;
        info!(%namespace, %name, epoch, shards, "checkpoint claimed");
    }

    /// The spec names another stream, or another table, than the checkpoint.
    pub fn checkpoint_of_other_stream(&self, before: &str, now: &str) {
        let NotifierLabels { namespace, name } = &self.labels;
        warn!(%namespace, %name, before, now, "the spec names another stream: starting afresh");
    }

    /// Another holder has the checkpoint.
    pub fn checkpoint_taken_over(&self, lost: &dyn std::error::Error) {
        let NotifierLabels { namespace, name } = &self.labels;
        let error = error_chain(lost);
        error!(%namespace, %name, error, "another operator holds the checkpoint: stopping here");
        self.count(&self.metrics.checkpoint_claims_lost, [], 1);
    }

    /// A checkpoint was written, or could not be.
    pub fn checkpoint_write(&self, is_success: bool) {
        let result = if is_success { "success" } else { "error" };
        self.count(&self.metrics.checkpoint_writes, [result], 1);
    }

    /// The worker has stopped; `drained` unless messages under way were left for the next one.
    pub fn stopped(&self, drained: bool) {
        let NotifierLabels { namespace, name } = &self.labels;
        info!(%namespace, %name, drained, "worker stopped");
    }

    /// A task of the worker panicked; the worker begins anew from its checkpoint.
    pub fn panicked(&self) {
        let NotifierLabels { namespace, name } = &self.labels;
        error!(%namespace, %name, "a task failed by a fault of the operator: starting again from the checkpoint");
    }

    /// A shard is read from here on.
    pub fn shard_opened(&self, shard: &ShardId, from: &dyn std::fmt::Display) {
        let NotifierLabels { namespace, name } = &self.labels;
        info!(%namespace, %name, %shard, %from, "reading shard");
    }

    /// A shard is read to its end and settled.
    pub fn shard_finished(&self, shard: &ShardId) {
        let NotifierLabels { namespace, name } = &self.labels;
        info!(%namespace, %name, %shard, "shard finished");
    }

    /// Records of a shard, or of any, were lost before they were read, for so many seconds.
    pub fn gap(&self, stream: &StreamLabel, shard: Option<&ShardId>, why: &str, seconds: u64) {
        let NotifierLabels { namespace, name } = &self.labels;
        let shard = shard.map_or("(any)", |shard| &shard.name);
        error!(
            %namespace, %name, %stream, shard, why, seconds,
            "records were lost before they were read"
        );
        self.count(&self.metrics.data_gaps, [], 1);
        self.count(&self.metrics.data_gap_seconds, [], seconds);
    }

    /// The worker has ended because of a gap.
    pub fn halted_on_gap(&self) {
        let NotifierLabels { namespace, name } = &self.labels;
        error!(%namespace, %name, "records were lost, and onGap is Stop: stopping here");
    }

    /// A request to the stream has ended with this code.
    pub fn stream_request(&self, operation: &'static str, code: &'static str) {
        self.count(&self.metrics.stream_requests, [operation, code], 1);
    }

    /// No requests are made any more.
    pub fn no_get_records_per_month(&self) {
        self.metrics.get_records_per_month.remove(&self.labels);
    }

    /// So old are the last changes that were read in the shard that is furthest behind.
    pub fn iterator_age(&self, seconds: i64) {
        self.metrics.iterator_age.get_or_create(&self.labels, []).set(seconds.max(0));
    }

    /// Nothing is read any more.
    pub fn no_iterator_age(&self) {
        self.metrics.iterator_age.remove(&self.labels);
    }

    /// A request to the stream waited for the rate limit.
    pub fn rate_limited(&self, operation: &'static str, wait: Duration) {
        if !wait.is_zero()
            && let Some(waited) = self.metrics.stream_rate_limit_wait.get(&self.labels, [operation])
        {
            waited.inc_by(wait.as_secs_f64());
        }
    }

    /// GetRecords requests in a month at the present request rate.
    pub fn get_records_per_month(&self, requests: f64) {
        self.metrics.get_records_per_month.get_or_create(&self.labels, []).set(requests);
    }

    /// Records that lack what a record must have.
    pub fn malformed_records(&self, shard: &ShardId, records: usize) {
        let NotifierLabels { namespace, name } = &self.labels;
        if let Some(unsaid) = self.malformed_log.try_acquire() {
            warn!(%namespace, %name, %shard, records, unsaid, "records skipped that cannot be read");
        }
        self.count(&self.metrics.records, ["malformed"], records as u64);
    }

    /// A page of records was read.
    pub fn records_read(&self, counts: &Counts) {
        let Counts { skipped, before_start: old, matched } = counts;
        for (result, records) in [("skipped", skipped), ("before_start", old), ("matched", matched)]
        {
            self.count(&self.metrics.records, [result], *records);
        }
    }

    /// Expressions were evaluated for so long.
    pub fn evaluated(&self, took: Duration) {
        let seconds = took.as_secs_f64();
        if let Some(evaluated) = self.metrics.expression_evaluation.get(&self.labels, []) {
            evaluated.inc_by(seconds);
        }
    }

    /// A record on which an expression failed, of a table with these key attributes. `problem` has no
    /// item values in it. Whether it was its turn to be told.
    pub fn invalid(
        &self,
        sequence_number: &SequenceNumber,
        keys: &KeySchema,
        field: &str,
        problem: &str,
    ) -> bool {
        let NotifierLabels { namespace, name } = &self.labels;
        self.count(&self.metrics.records, ["invalid"], 1);
        let Some(unsaid) = self.invalid_log.try_acquire() else {
            return false;
        };
        warn!(
            %namespace, %name, %sequence_number, %keys, field, problem, unsaid,
            "record skipped as invalid: nobody is told of this change"
        );
        true
    }

    /// A post ended with this outcome, a value of the metric's label.
    pub fn posted(&self, outcome: &'static str, took: Duration) {
        self.count(&self.metrics.post_attempts, [outcome], 1);
        self.posts.duration.observe(took.as_secs_f64());
    }

    /// A post waited for its turn among all of the account.
    pub fn post_rate_limited(&self, wait: Duration) {
        if !wait.is_zero() {
            self.posts.wait_seconds.inc_by(wait.as_secs_f64());
        }
    }

    /// A message of this size waits for its connection, until what is returned is dropped.
    pub fn queued(&self, kib: u32) -> QueuedGuard {
        let (posting, bytes) = (self.posts.clone(), i64::from(kib) * 1024);
        posting.waiting.inc();
        posting.waiting_bytes.inc_by(bytes);
        QueuedGuard { posting, bytes }
    }

    /// A message reached its connection, so many seconds after the item changed.
    pub fn delivered(&self, age: i64) {
        self.count(&self.metrics.messages, ["delivered"], 1);
        self.posts.age.observe(age.max(0) as f64);
    }

    /// A client that does not read was disconnected; `outcome` says what was answered.
    pub fn disconnected(&self, connection: &str, outcome: &'static str) {
        let NotifierLabels { namespace, name } = &self.labels;
        let connection = shortened(connection);
        warn!(%namespace, %name, connection, outcome, "client does not read: disconnected");
    }

    /// The record of lost messages was sent to the dead-letter queue, or what fits of it.
    pub fn dead_letter(&self, is_whole: bool) {
        let outcome = if is_whole { "sent" } else { "truncated" };
        self.count(&self.metrics.dead_letters, [outcome], 1);
    }

    /// The record of lost messages could not be sent to the dead-letter queue.
    pub fn dead_letter_lost(&self, sequence_number: &SequenceNumber) {
        let NotifierLabels { namespace, name } = &self.labels;
        error!(%namespace, %name, %sequence_number, "dead letter lost: its queue does not take it");
        self.count(&self.metrics.dead_letters, ["failed"], 1);
    }

    /// A message's connection is gone.
    pub fn gone(&self) {
        self.count(&self.metrics.messages, ["gone"], 1);
    }

    /// A message was given up.
    pub fn dropped(&self, why: DropReason, connection: &str, sequence_number: &SequenceNumber) {
        let NotifierLabels { namespace, name } = &self.labels;
        let why = why.metric_label();
        let connection = shortened(connection);
        debug!(%namespace, %name, connection, %sequence_number, why, "message dropped");
        // A client that does not read may lose thousands.
        if let Some(unsaid) = self.dropped_log.try_acquire() {
            warn!(%namespace, %name, connection, %sequence_number, why, unsaid, "messages are dropped");
        }
        self.count(&self.metrics.messages, [why], 1);
    }

    /// Connections were looked up.
    pub fn lookup_reused(&self, kind: LookupKind) {
        let source = match kind {
            LookupKind::Query => "query",
            LookupKind::Scan => "scan",
            LookupKind::Shared => "coalesced",
            LookupKind::Cached => "cache",
        };
        self.count(&self.metrics.connection_lookups, [source], 1);
    }

    /// Stored rows that have no usable connection id or lack the table's key, and such whose TTL has
    /// passed.
    pub fn rows_skipped(&self, unaddressed: u64, expired: u64) {
        if unaddressed > 0 {
            self.count(&self.metrics.messages, ["invalid_row"], unaddressed);
        }
        if expired > 0 {
            self.count(&self.metrics.stale_connection_rows, ["expired"], expired);
        }
    }

    /// The row of a connection that is gone was deleted, or kept because it was written again.
    pub fn row_deleted(&self, connection: &str, deleted: bool) {
        let NotifierLabels { namespace, name } = &self.labels;
        let connection = shortened(connection);
        debug!(%namespace, %name, connection, deleted, "row of a connection that is gone");
        let outcome = if deleted { "deleted" } else { "changed" };
        self.count(&self.metrics.stale_connection_rows, [outcome], 1);
    }

    /// The row of a connection that is gone could not be deleted.
    pub fn row_not_deleted(&self, connection: &str, error: &dyn std::error::Error) {
        let NotifierLabels { namespace, name } = &self.labels;
        let connection = shortened(connection);
        warn!(%namespace, %name, connection, error = error_chain(error), "row not deleted");
    }

    /// A call failed and is tried again.
    pub fn retry(&self, error: &dyn std::error::Error) {
        let NotifierLabels { namespace, name } = &self.labels;
        warn!(%namespace, %name, error = error_chain(error), "trying again");
    }

    /// Counts, unless the notifier was removed: a task that ends later must not bring its series back.
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

/// Something that is said once a minute at the most.
#[derive(Debug, Default)]
struct LogThrottle(Mutex<(Option<Instant>, u64)>);

impl LogThrottle {
    /// How often it was not said since the last time, if it may be said now.
    fn try_acquire(&self) -> Option<u64> {
        let mut said = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, unsaid) = &mut *said;
        if last.is_some_and(|last| last.elapsed() < LOG_INTERVAL) {
            *unsaid += 1;
            return None;
        }
        *last = Some(Instant::now());
        Some(std::mem::take(unsaid))
    }
}

/// Connection ids are shortened in logs: with the endpoint they are enough to write to a client.
fn shortened(connection: &str) -> String {
    let mut short: String = connection.chars().take(6).collect();
    short.push('…');
    short
}

/// An error and its causes, in one line.
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Libraries repeat their causes.
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        cause = error.source();
    }
    text
}
