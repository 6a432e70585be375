//! Delivery settings of the spec.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// How the operator retries, drops or dead-letters a message that it cannot deliver.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// Time after which the operator drops an undelivered message, in seconds.
    ///
    /// Time spent waiting because of wrong permissions or a wrong endpoint does not count.
    ///
    /// Minimum: 1. Maximum: 43,200. Default: 300. Example: `60`.
    #[serde(default = "default_max_record_age_seconds")]
    #[schemars(range(min = 1, max = 43_200))]
    pub max_record_age_seconds: i32,

    /// Number of failed attempts after which the operator drops a message.
    ///
    /// Attempts that fail because AWS throttles the whole account do not count.
    ///
    /// Minimum: 1. Maximum: 1,000. Default: none, so only `maxRecordAgeSeconds` limits the
    /// attempts. Example: `5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_attempts: Option<i32>,

    /// Action for a client that does not read its messages and whose buffer in API Gateway is full.
    ///
    /// `Wait` keeps its messages for up to `maxRecordAgeSeconds`. `Drop` replaces a queued message
    /// with a newer one for the same item. `Disconnect` closes the connection and deletes its row.
    /// In each case, the queue of such a client holds at most 512 KiB. Above this limit, the
    /// operator drops the oldest messages.
    ///
    /// Default: `Wait`.
    #[serde(default)]
    pub slow_client: SlowClientPolicy,

    /// Action for a message over 128 KiB, the limit of API Gateway.
    ///
    /// `Drop` sends nothing. `KeysOnly` sends `pk` and `sk` with the keys of the item, and
    /// `"truncated": true`.
    ///
    /// Default: `Drop`.
    #[serde(default)]
    pub oversize: OversizePolicy,

    /// ARN of an SQS queue for the records of dropped messages.
    ///
    /// The operator sends a record to this queue if it drops one of the record's messages, or if an
    /// expression fails on the record. The dead letter names the reasons and is sent before the
    /// checkpoint passes the record. If the queue rejects a dead letter, the operator sets the
    /// condition `Degraded`. It retries for 60 s, then drops the dead letter. After these 60 s, it
    /// drops other dead letters at once until the queue works again.
    ///
    /// Default: none. Example: `arn:aws:sqs:eu-west-1:123456789012:orders-dead-letters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{12}:[a-zA-Z0-9_-]{1,80}([.]fifo)?$')"
    ).message(
        "deadLetterQueueArn must be the ARN of an SQS queue, arn:aws:sqs:<region>:<account>:<queue>"
    ))]
    pub dead_letter_queue_arn: Option<String>,
}

/// Action for a client that does not read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum SlowClientPolicy {
    /// Keep its messages queued.
    #[default]
    Wait,
    /// Replace a queued message with a newer one for the same item.
    Drop,
    /// Close the connection.
    Disconnect,
}

/// Action for a message over 128 KiB.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum OversizePolicy {
    /// Send nothing.
    #[default]
    Drop,
    /// Send the keys of the item instead.
    KeysOnly,
}

impl Delivery {
    pub(super) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            max_record_age_seconds: default_max_record_age_seconds(),
            max_attempts: None,
            slow_client: SlowClientPolicy::default(),
            oversize: OversizePolicy::default(),
            dead_letter_queue_arn: None,
        }
    }
}

fn default_max_record_age_seconds() -> i32 {
    300
}
