//! What `kubectl`, Helm, Flux and Argo CD read of a notifier.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The state of a notifier, written by the operator.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StreamNotifierStatus {
    /// The `metadata.generation` that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// `Ready`: every open shard is read, or the notifier is suspended. `Reconciling`: a new spec,
    /// or a start, is on its way. `Stalled`: nothing happens until a person acts. `Degraded`:
    /// something should be mended although every change goes out. `DataGap`: changes were lost
    /// before they were read; it stays for 24 hours, or until the spec is changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,

    /// ARN of the stream that is read now. With `tableArn`, the oldest one that is not read to its
    /// end, or the newest once all are; absent before reading begins and while it is stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream_arn: Option<String>,
}
