//! The metrics of the process. Labels are bounded: namespace, name, and words from a fixed list.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::api::CONDITION_TYPES;

/// Which notifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NotifierLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl NotifierLabels {
    /// Of `namespace/name`.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }

    /// With a word.
    pub fn of(&self, kind: &'static str) -> WordLabels {
        WordLabels { namespace: self.namespace.clone(), name: self.name.clone(), kind }
    }

    /// With each type of condition.
    fn conditions(&self) -> impl Iterator<Item = ConditionLabels> {
        let Self { namespace, name } = self;
        CONDITION_TYPES.into_iter().map(|r#type| ConditionLabels {
            namespace: namespace.clone(),
            name: name.clone(),
            r#type,
        })
    }
}

/// Which notifier, and which of a few words.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WordLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The word, from a fixed list.
    pub kind: &'static str,
}

/// Which notifier, and which of its conditions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConditionLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// The condition's type.
    pub r#type: &'static str,
}

/// The words of each metric that has a `kind`.
const RECORDS: &[&str] = &["skipped", "old", "invalid", "matched", "unreadable"];
const POSTS: &[&str] = &["delivered", "gone", "held", "throttled", "too_large", "retried"];
const MESSAGES: &[&str] = &[
    "delivered",
    "gone",
    "too_large",
    "expired",
    "attempts",
    "superseded",
    "overflow",
    "disconnected",
    "unaddressed",
];
const DEAD_LETTERS: &[&str] = &["sent", "truncated", "lost"];
const ROWS: &[&str] = &["deleted", "kept", "expired"];
const LOOKUPS: &[&str] = &["query", "scan", "shared", "cached"];
const CALLS: &[&str] = &["list_streams", "describe_stream", "get_shard_iterator", "get_records"];

/// Every metric; cheap to clone, all clones count into one.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    pub(super) records: Family<WordLabels, Counter>,
    pub(super) expression_seconds: Family<NotifierLabels, Counter<f64, AtomicU64>>,
    pub(super) posts: Family<WordLabels, Counter>,
    pub(super) messages: Family<WordLabels, Counter>,
    pub(super) rows: Family<WordLabels, Counter>,
    pub(super) dead_letters: Family<WordLabels, Counter>,
    pub(super) waiting_messages: Family<NotifierLabels, Gauge>,
    pub(super) waiting_bytes: Family<NotifierLabels, Gauge>,
    pub(super) post_wait_seconds: Family<NotifierLabels, Counter<f64, AtomicU64>>,
    pub(super) times: Times,
    pub(super) lookups: Family<WordLabels, Counter>,
    pub(super) stream_calls: Family<WordLabels, Counter>,
    pub(super) stream_wait_seconds: Family<WordLabels, Counter<f64, AtomicU64>>,
    pub(super) get_records_per_month: Family<NotifierLabels, Gauge<f64, AtomicU64>>,
    pub(super) iterator_age: Family<NotifierLabels, Gauge>,
    pub(super) gaps: Family<NotifierLabels, Counter>,
    pub(super) gap_seconds: Family<NotifierLabels, Counter>,
    pub(super) lost_claims: Family<NotifierLabels, Counter>,
    pub(super) checkpoints: Family<NotifierLabels, Counter>,
    conditions: Family<ConditionLabels, Gauge>,
}

/// How long things take.
#[derive(Clone, Debug)]
pub(super) struct Times {
    pub(super) post: Family<NotifierLabels, Histogram>,
    pub(super) delivery: Family<NotifierLabels, Histogram>,
}

impl Default for Times {
    fn default() -> Self {
        let post =
            || Histogram::new([0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0]);
        // A change carries its time in whole seconds.
        let delivery =
            || Histogram::new([0.0, 1.0, 2.0, 5.0, 15.0, 60.0, 300.0, 1800.0, 7200.0, 43_200.0]);
        Self {
            post: Family::new_with_constructor(post),
            delivery: Family::new_with_constructor(delivery),
        }
    }
}

impl Metrics {
    /// The metrics as Prometheus reads them (OpenMetrics text).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry());
        text
    }

    /// Begins a notifier with all that it may count at nothing: a counter that comes with its first
    /// event hides that from whoever looks for an increase.
    pub(super) fn begin(&self, labels: &NotifierLabels) {
        for (family, kinds) in self.by_kind() {
            for kind in kinds {
                drop(family.get_or_create(&labels.of(kind)));
            }
        }
        for kind in CALLS {
            drop(self.stream_wait_seconds.get_or_create(&labels.of(kind)));
        }
        for family in self.counters() {
            drop(family.get_or_create(labels));
        }
        drop(self.expression_seconds.get_or_create(labels));
    }

    /// Tells of a notifier which of its conditions are true; a condition that is not there is not.
    pub fn conditions(&self, namespace: &str, name: &str, is_true: impl Fn(&str) -> bool) {
        for labels in NotifierLabels::new(namespace, name).conditions() {
            self.conditions.get_or_create(&labels).set(is_true(labels.r#type).into());
        }
    }

    /// Tells nothing of a notifier's conditions any more.
    pub fn forget_conditions(&self, namespace: &str, name: &str) {
        for labels in NotifierLabels::new(namespace, name).conditions() {
            self.conditions.remove(&labels);
        }
    }

    /// Forgets a notifier that is gone, so that its labels do not stay for ever.
    pub fn forget(&self, namespace: &str, name: &str) {
        self.forget_conditions(namespace, name);
        let labels = NotifierLabels::new(namespace, name);
        for (family, kinds) in self.by_kind() {
            for kind in kinds {
                family.remove(&labels.of(kind));
            }
        }
        for kind in CALLS {
            self.stream_wait_seconds.remove(&labels.of(kind));
        }
        for family in self.counters() {
            family.remove(&labels);
        }
        for family in [&self.waiting_messages, &self.waiting_bytes, &self.iterator_age] {
            family.remove(&labels);
        }
        for family in [&self.times.post, &self.times.delivery] {
            family.remove(&labels);
        }
        self.post_wait_seconds.remove(&labels);
        self.get_records_per_month.remove(&labels);
        self.expression_seconds.remove(&labels);
    }

    /// What is counted by kind, and the kinds.
    fn by_kind(&self) -> [(&Family<WordLabels, Counter>, &'static [&'static str]); 7] {
        [
            (&self.records, RECORDS),
            (&self.posts, POSTS),
            (&self.messages, MESSAGES),
            (&self.dead_letters, DEAD_LETTERS),
            (&self.rows, ROWS),
            (&self.lookups, LOOKUPS),
            (&self.stream_calls, CALLS),
        ]
    }

    /// What is counted without kinds.
    fn counters(&self) -> [&Family<NotifierLabels, Counter>; 4] {
        [&self.gaps, &self.gap_seconds, &self.lost_claims, &self.checkpoints]
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::with_prefix("stream_notifier");
        registry.register("records", "Records read, by what became of them", self.records.clone());
        registry.register(
            "expression_seconds",
            "How long expressions were evaluated",
            self.expression_seconds.clone(),
        );
        registry.register("posts", "Posts to connections, by outcome", self.posts.clone());
        registry.register(
            "messages",
            "Messages to connections, by how they were settled",
            self.messages.clone(),
        );
        registry.register(
            "post_duration_seconds",
            "How long posts to connections took, from the request to its answer",
            self.times.post.clone(),
        );
        registry.register(
            "post_wait_seconds",
            "How long posts waited for their turn among all of the account and region",
            self.post_wait_seconds.clone(),
        );
        registry.register(
            "delivery_age_seconds",
            "How long after the change messages were delivered, in whole seconds",
            self.times.delivery.clone(),
        );
        registry.register(
            "waiting_messages",
            "Messages that wait for their connections",
            self.waiting_messages.clone(),
        );
        registry.register(
            "waiting_bytes",
            "Bytes of the messages that wait for their connections, rounded up for each",
            self.waiting_bytes.clone(),
        );
        registry.register(
            "dead_letters",
            "Records of lost messages, by what became of their dead letter",
            self.dead_letters.clone(),
        );
        registry.register(
            "rows",
            "Rows of connections that are gone or out of date, by what became of them",
            self.rows.clone(),
        );
        registry.register(
            "lookups",
            "Lookups of connections: queries and scans, and records that shared one",
            self.lookups.clone(),
        );
        registry.register(
            "stream_calls",
            "Calls to the table's streams, by operation",
            self.stream_calls.clone(),
        );
        registry.register(
            "stream_wait_seconds",
            "How long calls to the table's streams waited for their turn, by operation",
            self.stream_wait_seconds.clone(),
        );
        registry.register(
            "get_records_per_month",
            "GetRecords calls a month that the present pace comes to",
            self.get_records_per_month.clone(),
        );
        registry.register(
            "iterator_age_seconds",
            "How old the last changes read are, in the shard that is furthest behind",
            self.iterator_age.clone(),
        );
        registry.register(
            "gap_seconds",
            "For how long records were lost to the retention, over all shards",
            self.gap_seconds.clone(),
        );
        registry.register("gaps", "Times records were lost to the retention", self.gaps.clone());
        registry.register(
            "lost_claims",
            "Times another holder took over",
            self.lost_claims.clone(),
        );
        registry.register("checkpoints", "Checkpoints written", self.checkpoints.clone());
        registry.register(
            "condition",
            "Whether a condition of the status is true: 1 or 0, by its type",
            self.conditions.clone(),
        );
        registry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use std::time::Duration;

    use super::*;
    use crate::record::StreamLabel;
    use crate::telemetry::{Counts, LookupKind, NotifierTelemetry};

    const DOCS: &str = include_str!("../../../docs/metrics.md");

    /// The documented metrics: name, what it tells, kinds.
    fn documented() -> Vec<(String, String, Vec<&'static str>)> {
        let rows = DOCS.lines().filter(|line| line.starts_with("| `stream_notifier_"));
        rows.map(|row| {
            let [_, name, tells, kinds, _] = row.split('|').collect::<Vec<_>>()[..] else {
                panic!("not a row of metrics: {row}");
            };
            let name = name.trim().trim_matches('`').to_owned();
            let kinds = kinds.split('`').skip(1).step_by(2).collect();
            (name, tells.trim().to_owned(), kinds)
        })
        .collect()
    }

    /// A notifier that has begun, and what comes later: what has told nothing is not served.
    fn all() -> Metrics {
        let metrics = Metrics::default();
        let telemetry = NotifierTelemetry::new(metrics.clone(), "dev", "orders");
        telemetry.pace(1.0);
        telemetry.iterator_age(1);
        metrics.conditions("dev", "orders", |type_| type_ == "Stalled");
        metrics
    }

    /// The kinds, or types, that are served of each metric.
    fn kinds(text: &str) -> BTreeMap<&str, BTreeSet<&str>> {
        let mut kinds = BTreeMap::<_, BTreeSet<_>>::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (name, labels) = line.split_once('{').unwrap();
            let kind = ["kind=\"", "type=\""].iter().find_map(|it| labels.split_once(it));
            let kind = kind.map(|(_, kind)| kind.split('"').next().unwrap());
            kinds.entry(name).or_default().extend(kind);
        }
        kinds
    }

    #[test]
    fn the_docs_list_every_metric_and_every_kind() {
        let text = all().encode();
        let line = |what: &str| {
            let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix(what)).collect();
            lines.into_iter().map(|line| line.split_once(' ').unwrap())
        };
        let types: BTreeMap<_, _> = line("# TYPE ").collect();
        let served: Vec<_> = line("# HELP ")
            .map(|(name, tells)| {
                let total = if types[name] == "counter" { "_total" } else { "" };
                (format!("{name}{total}"), tells.trim_end_matches('.').to_owned())
            })
            .collect();
        let told: Vec<_> = documented().into_iter().map(|(name, tells, _)| (name, tells)).collect();
        assert_eq!(told, served, "docs/metrics.md lists what is served, in its order");
        let served = kinds(&text);
        for (name, _, told) in documented() {
            let served = served.get(&*name).cloned().unwrap_or_default();
            assert_eq!(BTreeSet::from_iter(told), served, "the kinds of {name}");
        }
    }

    #[test]
    fn a_counter_is_there_before_it_counts() {
        let text = all().encode();
        let total = |line: &&str| line.split('{').next().is_some_and(|it| it.ends_with("_total"));
        let counters: Vec<_> = text.lines().filter(total).collect();
        assert!(counters.iter().all(|line| line.ends_with(" 0") || line.ends_with(" 0.0")));
        for (metric, kind) in
            [("dead_letters", "lost"), ("messages", "expired"), ("records", "invalid")]
        {
            let begin = format!("stream_notifier_{metric}_total{{");
            let kind = format!("kind=\"{kind}\"");
            assert!(counters.iter().any(|it| it.starts_with(&begin) && it.contains(&kind)));
        }
        let lost = "stream_notifier_lost_claims_total{namespace=\"dev\",name=\"orders\"} 0";
        assert!(counters.contains(&lost), "{text}");
    }

    #[test]
    fn a_notifier_that_is_gone_leaves_nothing_behind() {
        let metrics = all();
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
        telemetry.read(&Counts { matched: 1, ..Counts::default() });
        telemetry.called("get_records");
        telemetry.waited("get_records", Duration::from_secs(1));
        telemetry.post_waited(Duration::from_secs(1));
        telemetry.evaluated(Duration::from_secs(1));
        telemetry.looked_up(LookupKind::Query);
        telemetry.checkpointed();
        telemetry.claim_lost(&std::fmt::Error);
        telemetry.gap(&StreamLabel::new("2024-12-03T08:06:15.779"), None, "trimmed", 1);
        assert_eq!(metrics.encode(), "# EOF\n");
    }
}
