//! Metrics of the process. Every label has a bounded number of values.

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

/// Every metric. Clones share their series.
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
        // A record carries its time in whole seconds.
        let delivery_latency: fn() -> Histogram =
            || Histogram::new([0.0, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0]);
        Self {
            records: DefinedFamily::new(
                &crate::telemetry::metrics::definition::RECORDS,
                Counter::default,
            ),
            expression_evaluation: DefinedFamily::new(
                &crate::telemetry::metrics::definition::EXPRESSION_EVALUATION,
                Seconds::default,
            ),
            post_attempts: DefinedFamily::new(
                &crate::telemetry::metrics::definition::POST_ATTEMPTS,
                Counter::default,
            ),
            messages: DefinedFamily::new(
                &crate::telemetry::metrics::definition::MESSAGES,
                Counter::default,
            ),
            post_duration: DefinedFamily::new(
                &crate::telemetry::metrics::definition::POST_DURATION,
                post_duration,
            ),
            post_rate_limit_wait: DefinedFamily::new(
                &crate::telemetry::metrics::definition::POST_RATE_LIMIT_WAIT,
                Seconds::default,
            ),
            delivery_latency: DefinedFamily::new(
                &crate::telemetry::metrics::definition::DELIVERY_LATENCY,
                delivery_latency,
            ),
            queued_messages: DefinedFamily::new(
                &crate::telemetry::metrics::definition::QUEUED_MESSAGES,
                Gauge::default,
            ),
            queued_bytes: DefinedFamily::new(
                &crate::telemetry::metrics::definition::QUEUED_BYTES,
                Gauge::default,
            ),
            dead_letters: DefinedFamily::new(
                &crate::telemetry::metrics::definition::DEAD_LETTERS,
                Counter::default,
            ),
            stale_connection_rows: DefinedFamily::new(
                &crate::telemetry::metrics::definition::STALE_CONNECTION_ROWS,
                Counter::default,
            ),
            connection_lookups: DefinedFamily::new(
                &crate::telemetry::metrics::definition::CONNECTION_LOOKUPS,
                Counter::default,
            ),
            stream_requests: DefinedFamily::new(
                &crate::telemetry::metrics::definition::STREAM_REQUESTS,
                Counter::default,
            ),
            stream_rate_limit_wait: DefinedFamily::new(
                &crate::telemetry::metrics::definition::STREAM_RATE_LIMIT_WAIT,
                Seconds::default,
            ),
            get_records_per_month: DefinedFamily::new(
                &crate::telemetry::metrics::definition::GET_RECORDS_PER_MONTH,
                Gauge::default,
            ),
            iterator_age: DefinedFamily::new(
                &crate::telemetry::metrics::definition::ITERATOR_AGE,
                Gauge::default,
            ),
            data_gap_seconds: DefinedFamily::new(
                &crate::telemetry::metrics::definition::DATA_GAP_SECONDS,
                Counter::default,
            ),
            data_gaps: DefinedFamily::new(
                &crate::telemetry::metrics::definition::DATA_GAPS,
                Counter::default,
            ),
            checkpoint_claims_lost: DefinedFamily::new(
                &crate::telemetry::metrics::definition::CHECKPOINT_CLAIMS_LOST,
                Counter::default,
            ),
            checkpoint_writes: DefinedFamily::new(
                &crate::telemetry::metrics::definition::CHECKPOINT_WRITES,
                Counter::default,
            ),
            status_condition: DefinedFamily::new(
                &crate::telemetry::metrics::definition::STATUS_CONDITION,
                Gauge::default,
            ),
        }
    }
}

impl Metrics {
    /// The metrics in the OpenMetrics text format.
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

    /// Sets every counter of a notifier to 0, because a query for an increase misses the first event of
    /// a counter that appears with it.
    pub(crate) fn begin(&self, notifier: &NotifierLabels) {
        for metric in self.all() {
            if metric.definition().kind == Kind::Counter {
                metric.create(notifier);
            }
        }
    }

    /// Sets the status of each type of condition of a notifier.
    pub fn set_conditions<'a>(
        &self,
        namespace: &str,
        name: &str,
        status_of: impl Fn(&str) -> &'a str,
    ) {
        let notifier = NotifierLabels::new(namespace, name);
        for type_ in CONDITION_TYPES {
            let present = status_of(type_);
            for status in ["true", "false", "unknown"] {
                let is_present = present.eq_ignore_ascii_case(status);
                let series = self.status_condition.get_or_create(&notifier, [type_, status]);
                series.set(is_present.into());
            }
        }
    }

    /// Removes the conditions of a notifier.
    pub fn forget_conditions(&self, namespace: &str, name: &str) {
        self.status_condition.remove(&NotifierLabels::new(namespace, name));
    }

    /// Removes every series of a deleted notifier.
    pub fn forget(&self, namespace: &str, name: &str) {
        let notifier = NotifierLabels::new(namespace, name);
        for metric in self.all() {
            metric.remove(&notifier);
        }
    }

    /// Every metric, in the order of `docs/metrics.md`.
    fn all(&self) -> [&dyn Series; 21] {
        [
            &self.records,
            &self.expression_evaluation,
            &self.post_attempts,
            &self.messages,
            &self.post_duration,
            &self.post_rate_limit_wait,
            &self.delivery_latency,
            &self.queued_messages,
            &self.queued_bytes,
            &self.dead_letters,
            &self.stale_connection_rows,
            &self.connection_lookups,
            &self.stream_requests,
            &self.stream_rate_limit_wait,
            &self.get_records_per_month,
            &self.iterator_age,
            &self.data_gap_seconds,
            &self.data_gaps,
            &self.checkpoint_claims_lost,
            &self.checkpoint_writes,
            &self.status_condition,
        ]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::time::Duration;

    use super::*;
    use crate::model::StreamLabel;
    use crate::telemetry::notifier::{Counts, LookupKind, NotifierTelemetry};

    /// Metrics of a notifier that has every series.
    fn complete() -> Metrics {
        let metrics = Metrics::default();
        let telemetry = NotifierTelemetry::new(metrics.clone(), "dev", "orders");
        telemetry.get_records_per_month(1.0);
        telemetry.iterator_age(1);
        metrics.set_conditions("dev", "orders", |type_| match type_ {
            "Stalled" => "True",
            "Ready" => "Unknown",
            _ => "False",
        });
        metrics
    }

    #[test]
    fn serves_each_metric_as_it_is_defined() {
        let text = complete().encode();
        let described = |what: &str| -> BTreeMap<&str, &str> {
            let lines = text.lines().filter_map(|line| line.strip_prefix(what));
            lines.map(|line| line.split_once(' ').unwrap()).collect()
        };
        let (types, helps, units) =
            (described("# TYPE "), described("# HELP "), described("# UNIT "));
        let mut served = BTreeSet::new();
        for metric in complete().all() {
            let crate::telemetry::metrics::definition::Definition {
                name,
                kind,
                labels,
                unit,
                help,
            } = metric.definition();
            let family = name.strip_suffix("_total").unwrap_or(name);
            assert_eq!(types.get(family), Some(&kind.as_str()), "{name}");
            assert_eq!(helps.get(family), Some(&&*format!("{help}.")), "{name}");
            assert_eq!(units.contains_key(family), ["seconds", "bytes"].contains(unit), "{name}");
            assert_eq!(family == *name, *kind != Kind::Counter, "{name}");
            let name =
                if *kind == Kind::Histogram { format!("{name}_count") } else { (*name).into() };
            let begin = format!("{name}{{namespace=\"dev\",name=\"orders\"");
            let series = text.lines().filter_map(|line| line.strip_prefix(&begin));
            let series: BTreeSet<_> = series.map(|rest| rest.split('}').next().unwrap()).collect();
            let mut defined = vec![String::new()];
            for label in *labels {
                let with = |before: &String| {
                    let before = before.clone();
                    let with = move |value| format!("{before},{}=\"{value}\"", label.name);
                    label.values.iter().map(with)
                };
                defined = defined.iter().flat_map(with).collect();
            }
            assert_eq!(series, defined.iter().map(|it| &**it).collect(), "{name}");
            served.insert(family);
        }
        assert_eq!(types.into_keys().collect::<BTreeSet<_>>(), served);
    }

    #[test]
    fn starts_every_counter_at_zero() {
        let text = complete().encode();
        let total = |line: &&str| line.split('{').next().is_some_and(|it| it.ends_with("_total"));
        let counters: Vec<_> = text.lines().filter(total).collect();
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
    fn has_one_present_status_for_each_type_of_condition() {
        let text = complete().encode();
        let begin = "stream_notifier_status_condition{namespace=\"dev\",name=\"orders\",";
        let series = text.lines().filter_map(|line| line.strip_prefix(begin));
        let present: Vec<_> = series.filter_map(|rest| rest.strip_suffix("} 1")).collect();
        let expected = [
            r#"type="DataGap",status="false""#,
            r#"type="Degraded",status="false""#,
            r#"type="Ready",status="unknown""#,
            r#"type="Reconciling",status="false""#,
            r#"type="Stalled",status="true""#,
        ];
        assert_eq!(BTreeSet::from_iter(present), expected.into());
    }

    #[test]
    fn a_notifier_that_is_gone_leaves_nothing_behind() {
        let metrics = complete();
        assert!(metrics.encode().contains("orders"));
        metrics.forget("dev", "orders");
        assert_eq!(metrics.encode(), "# EOF\n");
    }

    #[test]
    fn what_a_notifier_that_is_gone_still_counts_brings_nothing_back() {
        let metrics = Metrics::default();
        let telemetry = NotifierTelemetry::new(metrics.clone(), "dev", "orders");
        metrics.forget("dev", "orders");
        telemetry.posted("delivered", Duration::ZERO);
        telemetry.delivered(1);
        telemetry.records_read(&Counts { matched: 1, ..Counts::default() });
        telemetry.stream_request("get_records", "ok");
        telemetry.rate_limited("get_records", Duration::from_secs(1));
        telemetry.post_rate_limited(Duration::from_secs(1));
        telemetry.evaluated(Duration::from_secs(1));
        telemetry.lookup_reused(LookupKind::Query);
        telemetry.checkpoint_write(true);
        telemetry.checkpoint_taken_over(&std::fmt::Error);
        telemetry.gap(&StreamLabel::new("2024-12-03T08:06:15.779"), None, "trimmed", 1);
        assert_eq!(metrics.encode(), "# EOF\n");
    }
}
