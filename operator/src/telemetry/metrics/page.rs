//! Text of `docs/metrics.md`.

use super::definition::{Definition, Label};
use crate::telemetry::metrics::Metrics;

const INTRODUCTION: &str = "\
<!-- Generated from operator/src/telemetry/metrics/definition.rs by `make generate`; do not edit. -->

# Metrics

The operator serves its metrics at `/metrics` in the OpenMetrics text format. Every metric has the labels
`namespace` and `name` of the StreamNotifier. Every other label has a fixed list of values, so the number of
series is bounded. The operator removes the series of a deleted StreamNotifier.

All counters of a notifier are initialized to 0 when its first worker starts.
`stream_notifier_status_condition` reports an absent condition as `false`. [Conditions](conditions.md)
explains the condition types.

";

/// Returns the text of the page.
pub fn metrics_page() -> String {
    let metrics = Metrics::default();
    let mut page = INTRODUCTION.to_owned();
    page += "| metric | type | unit | labels | description |\n|---|---|---|---|---|\n";
    for metric in metrics.all() {
        page += &row(metric.definition());
    }
    page += "\n## Label values\n\n| metric | label | value | meaning |\n|---|---|---|---|\n";
    for metric in metrics.all() {
        let Definition { name, labels, .. } = metric.definition();
        for Label { name: label, values, meanings } in *labels {
            for (value, meaning) in values.iter().zip(*meanings) {
                page += &format!("| `{name}` | `{label}` | `{value}` | {meaning} |\n");
            }
        }
    }
    page
}

fn row(definition: &Definition) -> String {
    let Definition { name, kind, labels, unit, help } = definition;
    let describe = |label: &Label| {
        let values: Vec<_> = label.values.iter().map(|value| format!("`{value}`")).collect();
        format!("`{}`: {}", label.name, values.join(", "))
    };
    let labels: Vec<_> = labels.iter().map(describe).collect();
    let kind = kind.as_str();
    format!("| `{name}` | {kind} | {unit} | {} | {help}. |\n", labels.join("<br>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explains_all_values_of_a_label_or_none() {
        for metric in Metrics::default().all() {
            for Label { name, values, meanings } in metric.definition().labels {
                assert!(meanings.is_empty() || meanings.len() == values.len(), "{name}");
            }
        }
    }

    #[test]
    fn matches_the_committed_page() {
        let committed = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));
        assert!(metrics_page() == committed, "docs/metrics.md differs: run make generate");
    }
}
