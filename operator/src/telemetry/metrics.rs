//! Metrics of the process.
//!
//! Every label but `namespace` and `name` has a fixed list of values, so the number of series is bounded.

pub mod definition;
pub mod family;
pub mod labels;
pub mod page;

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::CONDITION_TYPES;
use crate::telemetry::metrics::definition::Kind;
use crate::telemetry::metrics::family::{DefinedFamily, Series};
use crate::telemetry::metrics::labels::{
    ConditionLabels, NotifierLabels, OperationLabels, OutcomeLabels, RequestLabels, ResultLabels,
    SourceLabels,
};

type Seconds = Counter<f64, AtomicU64>;

/// All metrics. Clones share their series.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub(crate) records: DefinedFamily<1, ResultLabels, Counter>,
    pub(crate) expression_evaluation: DefinedFamily<0, NotifierLabels, Seconds>,
    pub(crate) post_attempts: DefinedFamily<1, OutcomeLabels, Counter>,
    pub(crate) messages: DefinedFamily<1, OutcomeLabels, Counter>,
    pub(crate) post_duration: DefinedFamily<0, NotifierLabels, Histogram>,
    pub(crate) post_rate_limit_wait: DefinedFamily<0, NotifierLabels, Seconds>,
    pub(crate) delivery_latency: DefinedFamily<0, NotifierLabels, Histogram>,
    pub(crate) queued_messages: DefinedFamily<0, NotifierLabels, Gauge>,
    pub(crate) queued_bytes: DefinedFamily<0, NotifierLabels, Gauge>,
    pub(crate) dead_letters: DefinedFamily<1, OutcomeLabels, Counter>,
    pub(crate) stale_connection_rows: DefinedFamily<1, OutcomeLabels, Counter>,
    pub(crate) connection_lookups: DefinedFamily<1, SourceLabels, Counter>,
    pub(crate) stream_requests: DefinedFamily<2, RequestLabels, Counter>,
    pub(crate) stream_rate_limit_wait: DefinedFamily<1, OperationLabels, Seconds>,
    pub(crate) get_records_per_month: DefinedFamily<0, NotifierLabels, Gauge<f64, AtomicU64>>,
    pub(crate) iterator_age: DefinedFamily<0, NotifierLabels, Gauge>,
    pub(crate) data_gap_seconds: DefinedFamily<0, NotifierLabels, Counter>,
    pub(crate) data_gaps: DefinedFamily<0, NotifierLabels, Counter>,
    pub(crate) checkpoint_claims_lost: DefinedFamily<0, NotifierLabels, Counter>,
    pub(crate) checkpoint_writes: DefinedFamily<1, ResultLabels, Counter>,
    status_condition: DefinedFamily<2, ConditionLabels, Gauge>,
}

impl Default for Metrics {
    fn default() -> Self {
        let post_duration: fn() -> Histogram =
            || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0]);
        // A record has its time in whole seconds only.
        let delivery_latency: fn() -> Histogram =
            || Histogram::new([0.0, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0]);
        Self {
            records: DefinedFamily::new(&definition::RECORDS, Counter::default),
            expression_evaluation: DefinedFamily::new(
                &definition::EXPRESSION_EVALUATION,
                Seconds::default,
            ),
            post_attempts: DefinedFamily::new(&definition::POST_ATTEMPTS, Counter::default),
            messages: DefinedFamily::new(&definition::MESSAGES, Counter::default),
            post_duration: DefinedFamily::new(&definition::POST_DURATION, post_duration),
            post_rate_limit_wait: DefinedFamily::new(
                &definition::POST_RATE_LIMIT_WAIT,
                Seconds::default,
            ),
            delivery_latency: DefinedFamily::new(&definition::DELIVERY_LATENCY, delivery_latency),
            queued_messages: DefinedFamily::new(&definition::QUEUED_MESSAGES, Gauge::default),
            queued_bytes: DefinedFamily::new(&definition::QUEUED_BYTES, Gauge::default),
            dead_letters: DefinedFamily::new(&definition::DEAD_LETTERS, Counter::default),
            stale_connection_rows: DefinedFamily::new(
                &definition::STALE_CONNECTION_ROWS,
                Counter::default,
            ),
            connection_lookups: DefinedFamily::new(
                &definition::CONNECTION_LOOKUPS,
                Counter::default,
            ),
            stream_requests: DefinedFamily::new(&definition::STREAM_REQUESTS, Counter::default),
            stream_rate_limit_wait: DefinedFamily::new(
                &definition::STREAM_RATE_LIMIT_WAIT,
                Seconds::default,
            ),
            get_records_per_month: DefinedFamily::new(
                &definition::GET_RECORDS_PER_MONTH,
                Gauge::default,
            ),
            iterator_age: DefinedFamily::new(&definition::ITERATOR_AGE, Gauge::default),
            data_gap_seconds: DefinedFamily::new(&definition::DATA_GAP_SECONDS, Counter::default),
            data_gaps: DefinedFamily::new(&definition::DATA_GAPS, Counter::default),
            checkpoint_claims_lost: DefinedFamily::new(
                &definition::CHECKPOINT_CLAIMS_LOST,
                Counter::default,
            ),
            checkpoint_writes: DefinedFamily::new(&definition::CHECKPOINT_WRITES, Counter::default),
            status_condition: DefinedFamily::new(&definition::STATUS_CONDITION, Gauge::default),
        }
    }
}

impl Metrics {
    /// Encodes all series in the OpenMetrics text format.
    pub fn encode(&self) -> String {
        let mut registry = Registry::default();
        for metric in self.all() {
            metric.register(&mut registry);
        }
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &registry);
        text
    }

    /// Creates every counter of a notifier that does not exist yet, at 0.
    ///
    /// Otherwise a counter would first appear with its first event, and `increase()` would miss it.
    pub(crate) fn create_counters(&self, notifier: &NotifierLabels) {
        for metric in self.all() {
            if metric.definition().kind == Kind::Counter {
                metric.create(notifier);
            }
        }
    }

    /// Sets the status of every condition type of a notifier.
    pub fn set_conditions<'a>(
        &self,
        namespace: &str,
        name: &str,
        status_of: impl Fn(&str) -> &'a str,
    ) {
        let notifier = NotifierLabels::new(namespace, name);
        for type_ in CONDITION_TYPES {
            let current = status_of(type_);
            for status in ["true", "false", "unknown"] {
                let is_current = current.eq_ignore_ascii_case(status);
                let series = self.status_condition.get_or_create(&notifier, [type_, status]);
                series.set(is_current.into());
            }
        }
    }

    /// Removes the condition series of a notifier.
    pub fn remove_conditions(&self, namespace: &str, name: &str) {
        self.status_condition.remove(&NotifierLabels::new(namespace, name));
    }

    /// Removes every series of a deleted notifier.
    pub fn remove_notifier(&self, namespace: &str, name: &str) {
        let notifier = NotifierLabels::new(namespace, name);
        for metric in self.all() {
            metric.remove(&notifier);
        }
    }

    /// Every metric, in the order of `docs/metrics.md`.
    fn all(&self) -> [&dyn Series; 21] {
        // Without `..`, so that no metric is forgotten.
        let Self {
            records,
            expression_evaluation,
            post_attempts,
            messages,
            post_duration,
            post_rate_limit_wait,
            delivery_latency,
            queued_messages,
            queued_bytes,
            dead_letters,
            stale_connection_rows,
            connection_lookups,
            stream_requests,
            stream_rate_limit_wait,
            get_records_per_month,
            iterator_age,
            data_gap_seconds,
            data_gaps,
            checkpoint_claims_lost,
            checkpoint_writes,
            status_condition,
        } = self;
        [
            records,
            expression_evaluation,
            post_attempts,
            messages,
            post_duration,
            post_rate_limit_wait,
            delivery_latency,
            queued_messages,
            queued_bytes,
            dead_letters,
            stale_connection_rows,
            connection_lookups,
            stream_requests,
            stream_rate_limit_wait,
            get_records_per_month,
            iterator_age,
            data_gap_seconds,
            data_gaps,
            checkpoint_claims_lost,
            checkpoint_writes,
            status_condition,
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::model::StreamLabel;
    use crate::telemetry::metrics::definition::Definition;
    use crate::telemetry::notifier::NotifierTelemetry;
    use crate::telemetry::outcomes::{LookupKind, RecordCounts};

    /// Metrics with every series of the notifier `dev/orders`.
    fn complete() -> Metrics {
        let metrics = Metrics::default();
        let telemetry = NotifierTelemetry::new(metrics.clone(), "dev", "orders");
        telemetry.set_get_records_per_month(1.0);
        telemetry.set_iterator_age(1);
        metrics.set_conditions("dev", "orders", |type_| match type_ {
            "Stalled" => "True",
            "Ready" => "Unknown",
            _ => "False",
        });
        metrics
    }

    #[test]
    fn encodes_each_metric_as_defined() {
        let text = complete().encode();
        let metadata = |keyword: &str| -> BTreeMap<&str, &str> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(keyword));
            lines.map(|line| line.split_once(' ').unwrap()).collect()
        };
        let (types, helps, units) = (metadata("# TYPE "), metadata("# HELP "), metadata("# UNIT "));
        let mut encoded = BTreeSet::new();
        for metric in complete().all() {
            let Definition { name, kind, labels, unit, help } = metric.definition();
            let family = name.strip_suffix("_total").unwrap_or(name);
            assert_eq!(types.get(family), Some(&kind.as_str()), "{name}");
            assert_eq!(helps.get(family), Some(&&*format!("{help}.")), "{name}");
            assert_eq!(units.contains_key(family), ["seconds", "bytes"].contains(unit), "{name}");
            assert_eq!(family == *name, *kind != Kind::Counter, "{name}");
            let name =
                if *kind == Kind::Histogram { format!("{name}_count") } else { (*name).into() };
            let prefix = format!("{name}{{namespace=\"dev\",name=\"orders\"");
            let series = text.lines().filter_map(|line| line.strip_prefix(&prefix));
            let series: BTreeSet<_> = series.map(|rest| rest.split('}').next().unwrap()).collect();
            let mut defined = vec![String::new()];
            for label in *labels {
                let with_label = |series: &String| {
                    let series = series.clone();
                    let append = move |value| format!("{series},{}=\"{value}\"", label.name);
                    label.values.iter().map(append)
                };
                defined = defined.iter().flat_map(with_label).collect();
            }
            assert_eq!(series, defined.iter().map(|it| &**it).collect(), "{name}");
            assert!(encoded.insert(family), "{name} is defined twice");
        }
        assert_eq!(types.into_keys().collect::<BTreeSet<_>>(), encoded);
    }

    #[test]
    fn starts_every_counter_at_zero() {
        let text = complete().encode();
        let is_counter =
            |line: &&str| line.split('{').next().is_some_and(|it| it.ends_with("_total"));
        let counters: Vec<_> = text.lines().filter(is_counter).collect();
        assert!(counters.iter().all(|line| line.ends_with(" 0") || line.ends_with(" 0.0")));
        for series in [
            r#"dead_letters_total{namespace="dev",name="orders",outcome="failed"} 0"#,
            r#"messages_total{namespace="dev",name="orders",outcome="expired"} 0"#,
            r#"records_total{namespace="dev",name="orders",result="invalid"} 0"#,
            r#"checkpoint_claims_lost_total{namespace="dev",name="orders"} 0"#,
        ] {
            assert!(counters.contains(&&*format!("stream_notifier_{series}")), "{text}");
        }
    }

    #[test]
    fn sets_one_status_for_each_condition_type() {
        let text = complete().encode();
        let prefix = "stream_notifier_status_condition{namespace=\"dev\",name=\"orders\",";
        let series = text.lines().filter_map(|line| line.strip_prefix(prefix));
        let current: Vec<_> = series.filter_map(|rest| rest.strip_suffix("} 1")).collect();
        let expected = [
            r#"type="DataGap",status="false""#,
            r#"type="Degraded",status="false""#,
            r#"type="Ready",status="unknown""#,
            r#"type="Reconciling",status="false""#,
            r#"type="Stalled",status="true""#,
        ];
        assert_eq!(BTreeSet::from_iter(current), expected.into());
    }

    #[test]
    fn removes_every_series_of_a_deleted_notifier() {
        let metrics = complete();
        assert!(metrics.encode().contains("orders"));
        metrics.remove_notifier("dev", "orders");
        assert_eq!(metrics.encode(), "# EOF\n");
    }

    #[test]
    fn creates_no_series_for_late_events_of_a_deleted_notifier() {
        let metrics = Metrics::default();
        let telemetry = NotifierTelemetry::new(metrics.clone(), "dev", "orders");
        metrics.remove_notifier("dev", "orders");
        telemetry.posted("delivered", Duration::ZERO);
        telemetry.message_delivered(1);
        telemetry.records_read(&RecordCounts { matched: 1, ..RecordCounts::default() });
        telemetry.stream_request("get_records", "ok");
        telemetry.stream_rate_limited("get_records", Duration::from_secs(1));
        telemetry.post_rate_limited(Duration::from_secs(1));
        telemetry.expressions_evaluated(Duration::from_secs(1));
        telemetry.connections_looked_up(LookupKind::Query);
        telemetry.checkpoint_write(true);
        telemetry.checkpoint_taken_over(&std::fmt::Error);
        telemetry.data_gap(&StreamLabel::new("2024-12-03T08:06:15.779"), None, "trimmed", 1);
        assert_eq!(metrics.encode(), "# EOF\n");
    }
}
