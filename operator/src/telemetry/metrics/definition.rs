//! Definitions of all metrics. The registry and `docs/metrics.md` are generated from this file.

use prometheus_client::registry::Unit;

use crate::api::CONDITION_TYPES;

/// Definition of one metric.
#[derive(Debug)]
pub struct Definition {
    /// Full name, with unit and `_total`.
    pub name: &'static str,
    pub kind: Kind,
    /// Labels besides `namespace` and `name`.
    pub labels: &'static [Label],
    /// Unit, or the noun that it counts.
    pub unit: &'static str,
    /// Help text: one sentence without a full stop.
    pub help: &'static str,
}

/// Type of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// A label and its possible values.
#[derive(Debug)]
pub struct Label {
    pub name: &'static str,
    pub values: &'static [&'static str],
    /// Meaning of each value. Empty if the values are self-explanatory.
    pub meanings: &'static [&'static str],
}

impl Kind {
    /// Name in the OpenMetrics format.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Definition {
    /// Name without suffixes, and unit. The registry appends the unit and `_total`.
    pub(crate) fn stem(&self) -> (&'static str, Option<Unit>) {
        let name = self.name.strip_suffix("_total").unwrap_or(self.name);
        let with_unit = [("_seconds", Unit::Seconds), ("_bytes", Unit::Bytes)];
        let mut stems = with_unit
            .into_iter()
            .filter_map(|(suffix, unit)| name.strip_suffix(suffix).map(|stem| (stem, Some(unit))));
        stems.next().unwrap_or((name, None))
    }
}

const fn counter(
    name: &'static str,
    labels: &'static [Label],
    unit: &'static str,
    help: &'static str,
) -> Definition {
    Definition { name, kind: Kind::Counter, labels, unit, help }
}

const fn gauge(
    name: &'static str,
    labels: &'static [Label],
    unit: &'static str,
    help: &'static str,
) -> Definition {
    Definition { name, kind: Kind::Gauge, labels, unit, help }
}

const fn histogram(name: &'static str, unit: &'static str, help: &'static str) -> Definition {
    Definition { name, kind: Kind::Histogram, labels: &[], unit, help }
}

const OPERATION: Label = Label {
    name: "operation",
    values: &["list_streams", "describe_stream", "get_shard_iterator", "get_records"],
    meanings: &[],
};

pub(crate) static RECORDS: Definition = counter(
    "stream_notifier_records_total",
    &[Label {
        name: "result",
        values: &["matched", "skipped", "before_start", "invalid", "malformed"],
        meanings: &[
            "The record matches the spec, and its connections are looked up.",
            "The record does not match the spec.",
            "The record is older than the starting position of the notifier.",
            "An expression failed on the record.",
            "The record lacks keys, a sequence number, a time or a known event name.",
        ],
    }],
    "records",
    "Records read from the stream, by the result of their evaluation",
);
pub(crate) static EXPRESSION_EVALUATION: Definition = counter(
    "stream_notifier_expression_evaluation_seconds_total",
    &[],
    "seconds",
    "Time spent on the evaluation of expressions",
);
pub(crate) static POST_ATTEMPTS: Definition = counter(
    "stream_notifier_post_attempts_total",
    &[Label {
        name: "outcome",
        values: &["delivered", "gone", "throttled", "too_large", "endpoint_error", "unavailable"],
        meanings: &[
            "API Gateway accepted the message.",
            "API Gateway reports the connection as gone.",
            "API Gateway throttled the request.",
            "The message is larger than 128 KiB.",
            "A permission, the endpoint or the credentials are wrong, so the message is held.",
            "There was no usable response; the message is retried.",
        ],
    }],
    "requests",
    "Requests that post a message to a connection, by outcome",
);
pub(crate) static MESSAGES: Definition = counter(
    "stream_notifier_messages_total",
    &[Label {
        name: "outcome",
        values: &[
            "delivered",
            "gone",
            "too_large",
            "expired",
            "attempts_exhausted",
            "superseded",
            "overflow",
            "disconnected",
            "invalid_row",
        ],
        meanings: &[
            "API Gateway accepted the message.",
            "The connection is closed.",
            "The message is larger than 128 KiB and was dropped.",
            "The message was older than `delivery.maxRecordAgeSeconds` and was dropped.",
            "The message failed `delivery.maxAttempts` times and was dropped.",
            "A newer message for the same item replaced it (`slowClient: Drop`, or a full queue).",
            "The queue of a slow client exceeded 512 KiB, and the message was dropped.",
            "The slow client was disconnected (`slowClient: Disconnect`).",
            "The row has no usable connection id or lacks the key of the table.",
        ],
    }],
    "messages",
    "Messages to connections, by final outcome",
);
pub(crate) static POST_DURATION: Definition = histogram(
    "stream_notifier_post_duration_seconds",
    "seconds",
    "Latency of PostToConnection, from request to response",
);
pub(crate) static POST_RATE_LIMIT_WAIT: Definition = counter(
    "stream_notifier_post_rate_limit_wait_seconds_total",
    &[],
    "seconds",
    "Time that posts waited for the rate limit of their region",
);
pub(crate) static DELIVERY_LATENCY: Definition = histogram(
    "stream_notifier_delivery_latency_seconds",
    "seconds",
    "Time from the change of an item to the delivery of its message, in whole seconds",
);
pub(crate) static QUEUED_MESSAGES: Definition = gauge(
    "stream_notifier_queued_messages",
    &[],
    "messages",
    "Messages in the queues of connections",
);
pub(crate) static QUEUED_BYTES: Definition = gauge(
    "stream_notifier_queued_bytes",
    &[],
    "bytes",
    "Total size of the queued messages, with each message rounded up to a multiple of 1 KiB",
);
pub(crate) static DEAD_LETTERS: Definition = counter(
    "stream_notifier_dead_letters_total",
    &[Label {
        name: "outcome",
        values: &["sent", "truncated", "failed"],
        meanings: &[
            "The dead letter was sent with the whole record.",
            "The dead letter was sent without the images of the record.",
            "The dead letter was lost because it could not be sent within 60 s, or because the queue was down.",
        ],
    }],
    "dead letters",
    "Dead letters, by outcome",
);
pub(crate) static STALE_CONNECTION_ROWS: Definition = counter(
    "stream_notifier_stale_connection_rows_total",
    &[Label {
        name: "outcome",
        values: &["deleted", "changed", "expired"],
        meanings: &[
            "The row of a closed connection was deleted.",
            "The row was written again in the meantime and was kept.",
            "The TTL of the row has passed, and the row was skipped.",
        ],
    }],
    "rows",
    "Rows of closed or expired connections, by outcome",
);
pub(crate) static CONNECTION_LOOKUPS: Definition = counter(
    "stream_notifier_connection_lookups_total",
    &[Label {
        name: "source",
        values: &["query", "scan", "coalesced", "cache"],
        meanings: &[
            "A query of the connections table or its index.",
            "A scan of the connections table or its index.",
            "A lookup that another record started.",
            "A lookup that started before the record was read (`connections.cacheSeconds`).",
        ],
    }],
    "lookups",
    "Lookups of the connections for a record, by source of the result",
);
pub(crate) static STREAM_REQUESTS: Definition = counter(
    "stream_notifier_stream_requests_total",
    &[
        OPERATION,
        Label {
            name: "code",
            values: &[
                "ok",
                "throttled",
                "unavailable",
                "not_found",
                "trimmed",
                "expired_iterator",
                "access_denied",
                "no_credentials",
                "untrusted_certificate",
                "invalid",
            ],
            meanings: &[
                "The request succeeded.",
                "The service throttled the request.",
                "There was no usable response.",
                "The stream, the table or the shard does not exist.",
                "The requested records are older than 24 hours.",
                "The shard iterator is older than 15 minutes.",
                "A permission is missing.",
                "The operator has no AWS credentials.",
                "The issuer of the endpoint's certificate is not trusted.",
                "The service rejected the request as invalid.",
            ],
        },
    ],
    "requests",
    "Requests to DynamoDB Streams, by operation and result",
);
pub(crate) static STREAM_RATE_LIMIT_WAIT: Definition = counter(
    "stream_notifier_stream_rate_limit_wait_seconds_total",
    &[OPERATION],
    "seconds",
    "Time that requests to DynamoDB Streams waited for the rate limit, by operation",
);
pub(crate) static GET_RECORDS_PER_MONTH: Definition = gauge(
    "stream_notifier_get_records_requests_per_month",
    &[],
    "requests per month",
    "GetRecords requests per month at the current rate",
);
pub(crate) static ITERATOR_AGE: Definition = gauge(
    "stream_notifier_iterator_age_seconds",
    &[],
    "seconds",
    "Age of the last record, or time since the last page if it was empty, in the shard furthest behind",
);
pub(crate) static DATA_GAP_SECONDS: Definition = counter(
    "stream_notifier_data_gap_seconds_total",
    &[],
    "seconds",
    "Total length of data gaps, summed over all shards",
);
pub(crate) static DATA_GAPS: Definition = counter(
    "stream_notifier_data_gaps_total",
    &[],
    "gaps",
    "Data gaps, in each of which records were lost before they were read",
);
pub(crate) static CHECKPOINT_CLAIMS_LOST: Definition = counter(
    "stream_notifier_checkpoint_claims_lost_total",
    &[],
    "claims",
    "Claims of the checkpoint that were lost to another operator",
);
pub(crate) static CHECKPOINT_WRITES: Definition = counter(
    "stream_notifier_checkpoint_writes_total",
    &[Label { name: "result", values: &["success", "error"], meanings: &[] }],
    "writes",
    "Writes of the checkpoint after it was claimed, by result",
);
pub(crate) static STATUS_CONDITION: Definition = gauge(
    "stream_notifier_status_condition",
    &[
        Label { name: "type", values: &CONDITION_TYPES, meanings: &[] },
        Label { name: "status", values: &["true", "false", "unknown"], meanings: &[] },
    ],
    "boolean",
    "Conditions of the StreamNotifier: 1 for the current status of each type, 0 for the other statuses",
);
