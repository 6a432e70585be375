//! Spec of the `StreamNotifier` resource.
//!
//! The schema and the CEL rules reject an invalid spec at `kubectl apply`, with a message that says
//! what to write instead.

pub mod connections;
pub mod delivery;

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use self::connections::{Connections, WebSocket};
use self::delivery::Delivery;
use super::status::StreamNotifierStatus;

/// Desired state of a notifier: the stream, the filters, the connections and the message.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "streamnotifier.dev",
    version = "v1alpha1",
    kind = "StreamNotifier",
    doc = "Pushes DynamoDB item changes to WebSocket clients in real time.",
    namespaced,
    status = "StreamNotifierStatus",
    shortname = "stn",
    category = "aws",
    derive = "PartialEq",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("size(self.metadata.name) <= 200").message(
        "metadata.name must have at most 200 characters because the operator appends -checkpoint to it"
    )
)]
#[x_kube(
    validation = Rule::new("has(self.streamArn) != has(self.tableArn)").message(
        "set exactly one of streamArn and tableArn: streamArn reads one stream, tableArn follows the table to each new stream"
    ),
    validation = Rule::new(
        "self.startingPosition != 'AtTimestamp' || has(self.startingTimestamp)"
    ).message(
        "startingPosition AtTimestamp requires startingTimestamp: add one such as 2026-11-22T12:00:00Z, or use Latest or TrimHorizon"
    ),
    validation = Rule::new(
        "self.startingPosition == 'AtTimestamp' || !has(self.startingTimestamp)"
    ).message(
        "startingTimestamp requires startingPosition AtTimestamp: set that too, or remove startingTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct StreamNotifierSpec {
    /// ARN of the stream to read.
    ///
    /// Set either `streamArn` or `tableArn`. Copy the ARN from `LatestStreamArn` in the output of
    /// `aws dynamodb describe-table`. The view type of the stream must include the images that the
    /// other fields use, usually `NEW_AND_OLD_IMAGES`. The operator reads only this stream. If this
    /// stream is disabled and the table gets a new one, `Ready` becomes `False` with the reason
    /// `StreamReplaced`.
    ///
    /// Example:
    /// `arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2024-12-03T08:06:15.779`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 400))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[a-zA-Z0-9_.-]{3,255}/stream/[0-9T:.-]+$')"
    ).message(
        "streamArn must be the ARN of a stream, arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>; copy LatestStreamArn from `aws dynamodb describe-table`"
    ))]
    pub stream_arn: Option<String>,

    /// ARN of the table whose streams are read.
    ///
    /// Set either `tableArn` or `streamArn`. Copy the ARN from `TableArn` in the output of
    /// `aws dynamodb describe-table`. If you disable the stream and enable it again, the operator
    /// reads the old stream to its end. It then reads the new stream from its oldest record, so the
    /// switch skips no record.
    ///
    /// Example: `arn:aws:dynamodb:eu-west-1:123456789012:table/orders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 350))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[a-zA-Z0-9_.-]{3,255}$')"
    ).message(
        "tableArn must be the ARN of a table, arn:aws:dynamodb:<region>:<account>:table/<table>; copy TableArn from `aws dynamodb describe-table`, or put the ARN of a stream into streamArn"
    ))]
    pub table_arn: Option<String>,

    /// Position at which reading begins if no checkpoint exists.
    ///
    /// `Latest` begins with new records. `TrimHorizon` begins with the oldest record of the stream,
    /// at most 24 hours old. `AtTimestamp` begins at `startingTimestamp`.
    ///
    /// Default: `Latest`.
    #[serde(default)]
    pub starting_position: StartingPosition,

    /// Time at which reading begins, in RFC 3339 format.
    ///
    /// Required with `startingPosition: AtTimestamp`, and not allowed without it. The operator
    /// skips older records. A stream keeps records for 24 hours, so a time further in the past
    /// causes a data gap (see `onGap`). If the time is in the future, the operator skips all
    /// records until then.
    ///
    /// Minimum: `2012-01-01T00:00:00Z`. Maximum: before `2200-01-01T00:00:00Z`. Default: none.
    /// Example: `2026-11-22T12:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    #[x_kube(validation = Rule::new(
        "self >= timestamp('2012-01-01T00:00:00Z') && self < timestamp('2200-01-01T00:00:00Z')"
    ).message("startingTimestamp must be a time from 2012 to 2199, such as 2026-11-22T12:00:00Z"))]
    pub starting_timestamp: Option<Timestamp>,

    /// Kinds of change that match: one or more of `Insert`, `Modify` and `Remove`.
    ///
    /// Default: `[Modify]`. Example: `[Insert, Modify]`.
    #[serde(default = "default_events")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub events: Vec<ChangeKind>,

    /// Filters on the key attributes of the item.
    ///
    /// A record must pass all of them. Write at most 2 entries, one for each key attribute.
    ///
    /// Default: none, so every item matches. Example: `[{key: PK, prefix: "order#"}]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub key_filters: Vec<KeyFilter>,

    /// Top-level attribute whose value must change.
    ///
    /// A record matches if the value of the attribute in the new image differs from that in the old
    /// image. Numbers are compared by their stored text, sets regardless of order. 1 to 255
    /// characters.
    ///
    /// Default: none, so every change matches. Example: `TargetAttribute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub attribute: Option<String>,

    /// CEL expression that must be `true` for a record to match.
    ///
    /// It sees the same variables as `message`. The operator evaluates it after `events`, `keyFilters`
    /// and `attribute`. If it fails or returns another type, the record is invalid. The operator then
    /// sends no message for it, counts it and creates an Event. 1 to 1,024 characters.
    ///
    /// Default: none, so every record matches. Example: `new.Price < old.Price`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub filter: Option<String>,

    /// DynamoDB table with one row for each open WebSocket connection.
    pub connections: Connections,

    /// API Gateway WebSocket API to which the operator posts the messages.
    pub web_socket: WebSocket,

    /// Fields of the JSON message, each with a CEL expression.
    ///
    /// An expression can use these maps of attributes: `keys`, `old` and `new`. `old` or `new` is
    /// empty if the record has no such image. It can also use `eventName` (`INSERT`, `MODIFY` or
    /// `REMOVE`), `eventId`, `sequenceNumber`, `approximateCreationDateTime` (seconds since 1970)
    /// and `userIdentity`. 1 to 32 fields, with 1 to 1,024 characters in each expression.
    ///
    /// Default: `pk` and `sk` with the keys of the item. If `attribute` is set, also `value` with
    /// the new value of that attribute. Example: `{value: "string(new.TargetAttribute)"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "message_schema")]
    pub message: Option<BTreeMap<String, String>>,

    /// How the operator retries, drops or dead-letters a message that it cannot deliver.
    #[serde(default, skip_serializing_if = "Delivery::is_default")]
    pub delivery: Delivery,

    /// Action if records are lost before the operator reads them.
    ///
    /// A stream keeps records for 24 hours. `Continue` resumes at the oldest record that is still
    /// in the stream. `Stop` stops reading and keeps the checkpoint before the gap until you act.
    /// Both set the condition `DataGap` and create an Event.
    ///
    /// Default: `Continue`.
    #[serde(default)]
    pub on_gap: DataGapPolicy,

    /// Longest interval between two polls of a quiet shard, in milliseconds.
    ///
    /// The operator polls a shard 25 ms after a page with records. The interval then grows up to
    /// this value while the shard is quiet. AWS bills each poll. At 250 ms, a quiet shard costs
    /// about 10 million GetRecords requests a month.
    ///
    /// Minimum: 50. Maximum: 30,000. Default: 250. Example: `1000`.
    #[serde(default = "default_poll_interval_milliseconds")]
    #[schemars(range(min = 50, max = 30_000))]
    pub poll_interval_milliseconds: i32,

    /// Whether reading is suspended.
    ///
    /// `true` stops reading and keeps the checkpoint. `false` continues from the checkpoint.
    ///
    /// Default: `false`.
    #[serde(default)]
    pub suspend: bool,
}

/// Position at which reading begins if no checkpoint exists.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum StartingPosition {
    /// New records.
    #[default]
    Latest,
    /// The oldest record of the stream, at most 24 hours old.
    TrimHorizon,
    /// Records from `startingTimestamp` on.
    AtTimestamp,
}

/// Action when the stream lost records before the operator read them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum DataGapPolicy {
    /// Go on with the oldest record that is left.
    #[default]
    Continue,
    /// Stop reading until a person acts.
    Stop,
}

/// Kind of change.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum ChangeKind {
    /// An item was created.
    Insert,
    /// An item was updated.
    Modify,
    /// An item was deleted.
    Remove,
}

/// Filter on one key attribute. A record must pass every matcher that is set.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.equals) || has(self.prefix) || has(self.suffix) || has(self.contains) || has(self.matches)"
).message("a key filter needs at least one of equals, prefix, suffix, contains, matches"))]
pub struct KeyFilter {
    /// Name of a key attribute of type string or number.
    ///
    /// A number is compared by its stored text. A binary key matches no filter. 1 to 255
    /// characters. Example: `PK`.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,

    /// Exact value of the key attribute.
    ///
    /// 1 to 2,048 characters. Default: none. Example: `order#1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub equals: Option<String>,

    /// Text at the start of the value.
    ///
    /// 1 to 1,024 characters. Default: none. Example: `order#`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub prefix: Option<String>,

    /// Text at the end of the value.
    ///
    /// 1 to 1,024 characters. Default: none. Example: `#open`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub suffix: Option<String>,

    /// Text anywhere in the value.
    ///
    /// 1 to 1,024 characters. Default: none. Example: `target_pk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub contains: Option<String>,

    /// Regular expression (RE2 syntax) that must match a part of the value.
    ///
    /// Use `^` and `$` to match the whole value. 1 to 512 characters. Default: none.
    /// Example: `^order#[0-9]+$`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub matches: Option<String>,
}

fn default_events() -> Vec<ChangeKind> {
    vec![ChangeKind::Modify]
}

fn default_poll_interval_milliseconds() -> i32 {
    250
}

/// Schema of `message`. Written by hand because no attribute can bound the values of a map.
fn message_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "minLength": 1, "maxLength": 1024 },
        "x-kubernetes-validations": [{
            "rule": "size(self) > 0",
            "message": "message has no field: add one, or remove message to send the default fields (pk, sk, value)",
        }],
    })
}
