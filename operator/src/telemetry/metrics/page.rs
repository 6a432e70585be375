//! Text of `docs/metrics.md`.

use super::Metrics;
use super::definition::Definition;

const INTRODUCTION: &str = "\
<!-- Generated from operator/src/telemetry/metrics/definition.rs by `make generate`; do not edit. -->

# Metrics

The operator serves its metrics at `/metrics` in the OpenMetrics text format. Every metric has the labels
`namespace` and `name` of the StreamNotifier. Every other label has a fixed list of values, so the number of
series is bounded. The operator removes the series of a deleted StreamNotifier.

Every counter of a notifier starts at 0 when its worker starts. `stream_notifier_status_condition` counts a
condition that is absent as `false`.

";

/// The page.
pub fn metrics_page() -> String {
    let metrics = Metrics::default();
    let mut page = INTRODUCTION.to_owned();
    page += "| metric | type | unit | labels | description |\n|---|---|---|---|---|\n";
    for metric in metrics.all() {
        page += &row(metric.definition());
    }
    page
}

fn row(definition: &Definition) -> String {
    let Definition { name, kind, labels, unit, help } = definition;
    let label = |label: &super::definition::Label| {
        let values: Vec<_> = label.values.iter().map(|value| format!("`{value}`")).collect();
        format!("`{}`: {}", label.name, values.join(", "))
    };
    let labels: Vec<_> = labels.iter().map(label).collect();
    let kind = kind.as_str();
    format!("| `{name}` | {kind} | {unit} | {} | {help}. |\n", labels.join("<br>"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_committed_as_generated() {
        let committed = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/metrics.md"));
        assert!(metrics_page() == committed, "docs/metrics.md differs: run make generate");
    }
}
