//! The metrics of the process. Labels are bounded: namespace, name, and words from a fixed list.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Which notifier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NotifierLabels {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
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

/// Every word that `kind` can be, in any metric.
pub(super) const KINDS: [&str; 30] = [
    "skipped",
    "old",
    "invalid",
    "matched",
    "delivered",
    "gone",
    "held",
    "throttled",
    "retried",
    "too_large",
    "expired",
    "attempts",
    "superseded",
    "overflow",
    "disconnected",
    "sent",
    "truncated",
    "lost",
    "unaddressed",
    "kept",
    "deleted",
    "unreadable",
    "list_streams",
    "describe_stream",
    "get_shard_iterator",
    "get_records",
    "query",
    "scan",
    "shared",
    "cached",
];

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
    pub(super) gaps: Family<NotifierLabels, Counter>,
    pub(super) gap_seconds: Family<NotifierLabels, Counter>,
    pub(super) lost_claims: Family<NotifierLabels, Counter>,
    pub(super) checkpoints: Family<NotifierLabels, Counter>,
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

    /// Forgets a notifier that is gone, so that its labels do not stay for ever.
    pub fn forget(&self, namespace: &str, name: &str) {
        for kind in KINDS {
            let labels =
                WordLabels { namespace: namespace.to_owned(), name: name.to_owned(), kind };
            for family in [
                &self.records,
                &self.posts,
                &self.messages,
                &self.rows,
                &self.lookups,
                &self.stream_calls,
            ] {
                family.remove(&labels);
            }
            self.dead_letters.remove(&labels);
            self.stream_wait_seconds.remove(&labels);
        }
        let labels = NotifierLabels { namespace: namespace.to_owned(), name: name.to_owned() };
        for family in [&self.gaps, &self.gap_seconds, &self.lost_claims, &self.checkpoints] {
            family.remove(&labels);
        }
        for family in [&self.waiting_messages, &self.waiting_bytes] {
            family.remove(&labels);
        }
        for family in [&self.times.post, &self.times.delivery] {
            family.remove(&labels);
        }
        self.post_wait_seconds.remove(&labels);
        self.get_records_per_month.remove(&labels);
        self.expression_seconds.remove(&labels);
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
        registry
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::*;

    const DOCS: &str = include_str!("../../../docs/operations.md");

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

    /// One of every metric: what has counted nothing is not served.
    fn all() -> Metrics {
        let metrics = Metrics::default();
        let word = WordLabels { namespace: "dev".into(), name: "orders".into(), kind: "sent" };
        let notifier = NotifierLabels { namespace: "dev".into(), name: "orders".into() };
        // Whoever adds one is sent here by the compiler.
        let Metrics {
            records,
            expression_seconds,
            posts,
            messages,
            rows,
            dead_letters,
            waiting_messages,
            waiting_bytes,
            post_wait_seconds,
            times: Times { post, delivery },
            lookups,
            stream_calls,
            stream_wait_seconds,
            get_records_per_month,
            gaps,
            gap_seconds,
            lost_claims,
            checkpoints,
        } = &metrics;
        for family in [records, posts, messages, rows, dead_letters, lookups, stream_calls] {
            drop(family.get_or_create(&word));
        }
        for family in [gaps, gap_seconds, lost_claims, checkpoints] {
            drop(family.get_or_create(&notifier));
        }
        for family in [waiting_messages, waiting_bytes] {
            drop(family.get_or_create(&notifier));
        }
        for family in [post, delivery] {
            drop(family.get_or_create(&notifier));
        }
        for family in [expression_seconds, post_wait_seconds] {
            drop(family.get_or_create(&notifier));
        }
        drop(stream_wait_seconds.get_or_create(&word));
        drop(get_records_per_month.get_or_create(&notifier));
        metrics
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
        let (told, kinds): (Vec<_>, Vec<_>) =
            documented().into_iter().map(|(name, tells, kinds)| ((name, tells), kinds)).unzip();
        assert_eq!(told, served, "docs/operations.md lists what is served, in its order");
        let kinds: BTreeSet<_> = kinds.into_iter().flatten().collect();
        assert_eq!(kinds, BTreeSet::from(KINDS));
    }

    #[test]
    fn a_notifier_that_is_gone_leaves_nothing_behind() {
        let metrics = all();
        assert!(metrics.encode().contains("orders"));
        metrics.forget("dev", "orders");
        assert_eq!(metrics.encode(), "# EOF\n");
    }
}
