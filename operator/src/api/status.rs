//! Status of the `StreamNotifier` resource, as `kubectl`, Helm, Flux and Argo CD read it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Observed state of a notifier, written by the operator.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamNotifierStatus {
    /// `metadata.generation` of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Conditions of the notifier, by type.
    ///
    /// `Ready`: the operator reads every open shard, or the notifier is suspended.
    ///
    /// `Reconciling`: the operator is starting the notifier, or is retrying after an error.
    ///
    /// `Stalled`: the notifier cannot continue until you act.
    ///
    /// `Degraded`: something needs a fix, but delivery continues.
    ///
    /// `DataGap`: records were lost before the operator read them. It remains for 24 hours, or until
    /// you change the spec.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// ARN of the stream that the operator reads.
    ///
    /// With `tableArn`, this is the oldest stream that has not been read to its end, or the newest
    /// one if all have. Absent before reading begins and while reading is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_arn: Option<String>,
}
