//! Label sets. Each has `namespace` and `name` of the notifier, and the labels of a definition.

use std::fmt::Debug;
use std::hash::Hash;

use prometheus_client::encoding::EncodeLabelSet;

/// Label set of a metric without labels of its own.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct NotifierLabels {
    pub namespace: String,
    pub name: String,
}

impl NotifierLabels {
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Label set, built from the labels of a notifier and `N` values.
pub trait Labels<const N: usize>:
    Clone + Debug + Eq + Hash + EncodeLabelSet + Send + Sync + 'static
{
    /// Creates the label set; `values` are in the order of the definition.
    fn new(notifier: &NotifierLabels, values: [&'static str; N]) -> Self;
}

impl Labels<0> for NotifierLabels {
    fn new(notifier: &NotifierLabels, []: [&'static str; 0]) -> Self {
        notifier.clone()
    }
}

/// Defines a label set for each combination of labels.
macro_rules! labels {
    ($($set:ident: $count:literal { $($label:ident),+ })+) => {
        $(
            #[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
            pub struct $set {
                namespace: String,
                name: String,
                $($label: &'static str,)+
            }

            impl Labels<$count> for $set {
                fn new(notifier: &NotifierLabels, [$($label),+]: [&'static str; $count]) -> Self {
                    let NotifierLabels { namespace, name } = notifier.clone();
                    Self { namespace, name, $($label,)+ }
                }
            }
        )+
    };
}

labels! {
    ResultLabels: 1 { result }
    OutcomeLabels: 1 { outcome }
    SourceLabels: 1 { source }
    OperationLabels: 1 { operation }
    RequestLabels: 2 { operation, code }
    ConditionLabels: 2 { r#type, status }
}
