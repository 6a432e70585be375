//! Metric with its definition: one series for each notifier and each combination of label values.

use std::fmt::Debug;

use prometheus_client::encoding::EncodeMetric;
use prometheus_client::metrics::TypedMetric;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::registry::Registry;

use super::definition::Definition;
use super::labels::{Labels, NotifierLabels};

/// All series of one metric. Clones share them.
#[derive(Clone, Debug)]
pub struct DefinedFamily<const N: usize, L, M, C = fn() -> M> {
    definition: &'static Definition,
    family: Family<L, M, C>,
}

impl<const N: usize, L, M, C> DefinedFamily<N, L, M, C>
where
    L: Labels<N>,
    M: Clone,
    C: MetricConstructor<M>,
{
    /// Creates the metric without series.
    pub fn new(definition: &'static Definition, constructor: C) -> Self {
        Self { definition, family: Family::new_with_constructor(constructor) }
    }

    /// Returns the series with these label values, and creates it if it is missing.
    pub fn get_or_create(&self, notifier: &NotifierLabels, values: [&'static str; N]) -> M {
        self.family.get_or_create_owned(&self.labels(notifier, values))
    }

    /// Returns the series with these label values, if it exists.
    pub fn get(&self, notifier: &NotifierLabels, values: [&'static str; N]) -> Option<M> {
        Some(self.family.get(&self.labels(notifier, values))?.clone())
    }

    fn labels(&self, notifier: &NotifierLabels, values: [&'static str; N]) -> L {
        debug_assert!(
            self.definition.labels.len() == N
                && self
                    .definition
                    .labels
                    .iter()
                    .zip(values)
                    .all(|(label, value)| label.values.contains(&value)),
            "label values {values:?} are not defined for {}",
            self.definition.name
        );
        L::new(notifier, values)
    }

    /// Labels of every series of a notifier: all combinations of label values.
    fn all_labels(&self, notifier: &NotifierLabels) -> impl Iterator<Item = L> {
        let labels = self.definition.labels;
        let count = labels.iter().map(|label| label.values.len()).product::<usize>();
        (0..count).map(move |mut index| {
            let values = std::array::from_fn(|at| {
                let values = labels[at].values;
                let value = values[index % values.len()];
                index /= values.len();
                value
            });
            L::new(notifier, values)
        })
    }
}

/// A metric of any type and with any labels.
pub trait Series {
    fn definition(&self) -> &'static Definition;

    /// Creates every series of a notifier.
    fn create(&self, notifier: &NotifierLabels);

    /// Removes every series of a notifier.
    fn remove(&self, notifier: &NotifierLabels);

    /// Adds the metric to a registry.
    fn register(&self, registry: &mut Registry);
}

impl<const N: usize, L, M, C> Series for DefinedFamily<N, L, M, C>
where
    L: Labels<N>,
    M: EncodeMetric + TypedMetric + Clone + Debug + Send + Sync + 'static,
    C: MetricConstructor<M> + Clone + Send + Sync + 'static,
{
    fn definition(&self) -> &'static Definition {
        self.definition
    }

    fn create(&self, notifier: &NotifierLabels) {
        for labels in self.all_labels(notifier) {
            drop(self.family.get_or_create(&labels));
        }
    }

    fn remove(&self, notifier: &NotifierLabels) {
        for labels in self.all_labels(notifier) {
            self.family.remove(&labels);
        }
    }

    fn register(&self, registry: &mut Registry) {
        let (help, family) = (self.definition.help, self.family.clone());
        match self.definition.stem() {
            (name, Some(unit)) => registry.register_with_unit(name, help, unit, family),
            (name, None) => registry.register(name, help, family),
        }
    }
}
