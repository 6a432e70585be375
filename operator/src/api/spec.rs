//! `StreamNotifier` as users write it. Whatever a schema or a rule can refuse is refused at
//! `kubectl apply`, with a sentence that says what to write instead.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::StreamNotifierStatus;

/// Tells WebSocket clients, in real time, that an item of a DynamoDB table has changed.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "streamnotifier.dev",
    version = "v1alpha1",
    kind = "StreamNotifier",
    doc = "Tells WebSocket clients, in real time, that an item of a DynamoDB table has changed.",
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
        "metadata.name must have at most 200 characters, so that the checkpoint's name fits"
    )
)]
#[x_kube(
    validation = Rule::new("has(self.streamArn) != has(self.tableArn)").message(
        "give exactly one of streamArn and tableArn: streamArn reads that one stream, tableArn the table's newest one, also after it was disabled and enabled again"
    ),
    validation = Rule::new(
        "self.startingPosition != 'AtTimestamp' || has(self.startingTimestamp)"
    ).message(
        "startingPosition AtTimestamp needs startingTimestamp: add one such as 2026-11-22T12:00:00Z, or take Latest or TrimHorizon"
    ),
    validation = Rule::new(
        "self.startingPosition == 'AtTimestamp' || !has(self.startingTimestamp)"
    ).message(
        "startingTimestamp is used with startingPosition AtTimestamp only: write that too, or leave startingTimestamp out"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct StreamNotifierSpec {
    /// ARN of the stream to read, as `aws dynamodb describe-table` shows it in `LatestStreamArn`;
    /// or give `tableArn`. The stream must have the images that the other fields use (usually
    /// `NEW_AND_OLD_IMAGES`). Only this stream is read: once it is disabled and another one has
    /// taken its place, a condition says so and names that one.
    /// Example: `arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/2024-12-03T08:06:15.779`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 400))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[a-zA-Z0-9_.-]{3,255}/stream/[0-9T:.-]+$')"
    ).message(
        "streamArn must be the ARN of a stream, arn:aws:dynamodb:<region>:<account>:table/<table>/stream/<label>; a table shows it as LatestStreamArn"
    ))]
    pub stream_arn: Option<String>,

    /// ARN of the table whose newest stream is read, as `aws dynamodb describe-table` shows it in
    /// `TableArn`; or give `streamArn`. When the stream is disabled and enabled again, the old one is
    /// read to its end and then the new one from its start, so that nothing is lost in between.
    /// Example: `arn:aws:dynamodb:eu-west-1:123456789012:table/orders`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 350))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^arn:aws[a-z-]*:dynamodb:[a-z0-9-]+:[0-9]{12}:table/[a-zA-Z0-9_.-]{3,255}$')"
    ).message(
        "tableArn must be the ARN of a table, arn:aws:dynamodb:<region>:<account>:table/<table>; a table shows it as TableArn, and the ARN of a stream goes into streamArn"
    ))]
    pub table_arn: Option<String>,

    /// Where reading begins while there is no checkpoint: `Latest` (changes from now on),
    /// `TrimHorizon` (everything the stream still has, at most 24 hours) or `AtTimestamp` (changes
    /// since `startingTimestamp`). Default: `Latest`.
    #[serde(default)]
    pub starting_position: StartingPosition,

    /// From when on changes count, with `startingPosition: AtTimestamp` and only with it: a date and
    /// time as in RFC 3339. A stream keeps the changes of the last 24 hours: an earlier time is a gap
    /// (see `onGap`), since what came between is lost. Until a time to come nobody is told.
    /// Example: `2026-11-22T12:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Time>")]
    #[x_kube(validation = Rule::new(
        "self >= timestamp('2012-01-01T00:00:00Z') && self < timestamp('2200-01-01T00:00:00Z')"
    ).message("startingTimestamp must be a date and time such as 2026-11-22T12:00:00Z"))]
    pub starting_timestamp: Option<Timestamp>,

    /// Which kinds of change count, at least one of `Insert`, `Modify` and `Remove`.
    /// Default: `[Modify]`.
    #[serde(default = "default_events")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub events: Vec<Event>,

    /// Only changes of items whose key attributes pass all of these. One entry per key attribute.
    /// Default: every item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["key".into()]))]
    pub key_filters: Vec<KeyFilter>,

    /// Only changes in which this top-level attribute has a new value that differs from the old
    /// one, as stored (numbers by their text, sets as sets). Default: any change.
    /// Example: `TargetAttribute`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub attribute: Option<String>,

    /// Only changes for which this CEL expression is `true`; it sees what `message` sees, and is asked
    /// after `events`, `keyFilters` and `attribute`. One that gives something else, or fails, makes the
    /// change invalid: nobody is told, and it is counted. Default: every change.
    /// Example: `new.Price < old.Price`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub filter: Option<String>,

    /// The DynamoDB table that holds a row for each open WebSocket connection.
    pub connections: Connections,

    /// The API Gateway WebSocket API whose clients are told.
    pub web_socket: WebSocket,

    /// The message, a JSON object: field name to CEL expression. An expression sees `keys`, `old`
    /// and `new` (maps of attributes; empty where the record has no such image), `eventName`
    /// (`INSERT`, `MODIFY`, `REMOVE`), `eventId`, `sequenceNumber`, `approximateCreationDateTime`
    /// (seconds since 1970) and `userIdentity`.
    /// Default: `pk` and `sk`, the item's keys, and `value`, the attribute's new value (only with
    /// `attribute`).
    /// Example: `{value: "string(new.TargetAttribute)"}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "message_schema")]
    pub message: Option<BTreeMap<String, String>>,

    /// What happens to messages that do not get through.
    #[serde(default, skip_serializing_if = "Delivery::is_default")]
    pub delivery: Delivery,

    /// What happens when changes were lost before they were read, because a stream keeps them for 24
    /// hours only: `Continue` (with the oldest change left) or `Stop` (read nothing more and keep the
    /// checkpoint before the gap, until a person decides). Either way the condition `DataGap` and an
    /// Event tell it. Default: `Continue`.
    #[serde(default)]
    pub on_gap: OnGap,

    /// How often a shard is asked in which nothing happens, in milliseconds, 50 to 30,000. One that
    /// had a change is asked after 25, and more slowly the longer it is quiet. AWS bills each call:
    /// at 250 a quiet shard is about ten million a month.
    /// Default: 250. Example: `1000`.
    #[serde(default = "default_poll_interval_milliseconds")]
    #[schemars(range(min = 50, max = 30_000))]
    pub poll_interval_milliseconds: i32,

    /// `true` stops reading and keeps the checkpoint; `false` goes on from there. Default: `false`.
    #[serde(default)]
    pub suspend: bool,
}

/// Where reading begins while there is no checkpoint.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum StartingPosition {
    /// Changes from now on.
    #[default]
    Latest,
    /// The oldest change the stream still has (at most 24 hours old).
    TrimHorizon,
    /// Changes since `startingTimestamp`.
    AtTimestamp,
}

/// What happens when changes were lost before they were read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum OnGap {
    /// Reading goes on with the oldest change left.
    #[default]
    Continue,
    /// Nothing more is read until a person decides.
    Stop,
}

/// A kind of change.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Event {
    /// An item was created.
    Insert,
    /// An item was changed.
    Modify,
    /// An item was deleted.
    Remove,
}

/// What a key attribute must look like. All matchers given must hold.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.equals) || has(self.prefix) || has(self.suffix) || has(self.contains) || has(self.matches)"
).message("a key filter needs at least one of equals, prefix, suffix, contains, matches"))]
pub struct KeyFilter {
    /// Name of the key attribute. Example: `PK`.
    #[schemars(length(min = 1, max = 255))]
    pub key: String,

    /// The whole value. A number is compared by its text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub equals: Option<String>,

    /// What the value begins with. Example: `order#`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub prefix: Option<String>,

    /// What the value ends with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub suffix: Option<String>,

    /// What the value has somewhere in it. Example: `target_pk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub contains: Option<String>,

    /// A regular expression (RE2 syntax) found somewhere in the value; `^` and `$` anchor it.
    /// Example: `^order#[0-9]+$`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub matches: Option<String>,
}

/// Where connections are stored, and which of them a change concerns.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.partitionKey) == has(self.value)").message(
    "give both connections.partitionKey and connections.value, or neither to tell every connection of the table"
))]
pub struct Connections {
    /// Name of the table, in the stream's account. Example: `sample-connections-dev`.
    #[schemars(length(min = 3, max = 255), pattern("^[a-zA-Z0-9_.-]+$"))]
    pub table_name: String,

    /// AWS region of the table. Default: the stream's. Example: `eu-west-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 32))]
    #[x_kube(validation = Rule::new(
        "self.matches('^[a-z]+(-[a-z]+)+-[0-9]+$')"
    ).message("connections.region must be an AWS region such as eu-west-1"))]
    pub region: Option<String>,

    /// Name of the index that is asked. Its projection must include `connectionIdAttribute`, and
    /// `ttlAttribute` where that is given. Default: the table itself.
    /// A table is read consistently; an index is eventually consistent: a row stored a moment ago may
    /// not show yet, and its client is not told of a change at that moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 255), pattern("^[a-zA-Z0-9_.-]+$"))]
    pub index_name: Option<String>,

    /// The partition key of the table, or of the index, that is asked; goes with `value`.
    /// Default: none; without it every connection of the table, or of the index, is told of every
    /// change, by reading all of it (a Scan). Example: `sk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub partition_key: Option<String>,

    /// CEL expression of the value that is looked up there; it must give the key attribute's type
    /// (string, number or binary). It sees what `message` sees. Goes with `partitionKey`.
    /// Example: `keys.SK.split('#')[1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub value: Option<String>,

    /// The row's attribute that holds the connection id. Default: `connectionId`.
    #[serde(default = "default_connection_id_attribute")]
    #[schemars(length(min = 1, max = 255))]
    pub connection_id_attribute: String,

    /// The row's attribute that says when the row is out of date, in seconds since 1970: usually the
    /// table's TTL attribute. DynamoDB deletes such a row days later; it is skipped at once.
    /// Default: none. Example: `expiresAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub ttl_attribute: Option<String>,

    /// For how long a lookup also serves changes that are read after it began, in seconds, 0 to 300.
    /// Fewer queries and scans, but a client that connects may not be told of changes for as long.
    /// At 0 a change is looked up after it was read, so that whoever was stored before the change is
    /// told of it; changes read together still share a lookup. Default: 0. Example: `5`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 300))]
    pub cache_seconds: i32,
}

/// The API Gateway WebSocket API whose clients are told.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        r"!self.domain.matches('[.]execute-api[.]') || has(self.stage)"
    ).message("webSocket.stage is needed with an execute-api domain; `aws apigatewayv2 get-stages` shows it"),
    validation = Rule::new(
        r"!self.domain.matches('[.]execute-api[.]') || !has(self.region) || self.domain.contains('.execute-api.' + self.region + '.')"
    ).message("webSocket.region is another region than that in the execute-api domain: leave webSocket.region out")
)]
pub struct WebSocket {
    /// Domain of the API, without scheme, port or path: `<api-id>.execute-api.<region>.amazonaws.com`,
    /// or a custom domain that the operator's administrator has allowed.
    #[schemars(length(min = 4, max = 253))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z][a-z0-9-]{0,61}[a-z0-9]$')"
    ).message(
        "webSocket.domain must be a lower-case domain name without scheme, port or path, such as abcdefghij.execute-api.eu-west-1.amazonaws.com"
    ))]
    pub domain: String,

    /// The API's stage; with a custom domain the API mapping key, or nothing where the mapping has
    /// none. Example: `api`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), pattern("^[a-zA-Z0-9_$-][a-zA-Z0-9_$.-]*$"))]
    pub stage: Option<String>,

    /// The region of the API behind a custom domain, which requests are signed for. An execute-api
    /// domain tells it: leave it out there, or write the same. Default: the stream's region.
    /// Example: `eu-west-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 32), pattern("^[a-z]{2,}(-[a-z]+)+-[0-9]+$"))]
    pub region: Option<String>,
}

/// What happens to messages that do not get through.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// How long a message is tried before it is given up, in seconds, 1 to 43,200. The time in which
    /// rights or endpoint are wrong does not count. Default: 300. Example: `60`.
    #[serde(default = "default_max_record_age_seconds")]
    #[schemars(range(min = 1, max = 43_200))]
    pub max_record_age_seconds: i32,

    /// How often a message is tried before it is given up, 1 to 1,000. What the account's own limit
    /// refuses does not count. Default: as often as `maxRecordAgeSeconds` allows. Example: `5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000))]
    pub max_attempts: Option<i32>,

    /// What happens to a client that does not read, so that API Gateway's buffer for it is full:
    /// `Wait` (its messages wait, for `maxRecordAgeSeconds`), `Drop` (a newer message of the same
    /// item takes the place of one that waits) or `Disconnect` (it is disconnected, and its row is
    /// deleted). With each of them at most 512 KiB wait for one connection; beyond that the oldest
    /// are given up. Default: `Wait`.
    #[serde(default)]
    pub slow_client: SlowClient,

    /// What happens to a message over 128 KB, the most that API Gateway takes: `Drop` (nobody is
    /// told) or `KeysOnly` (`pk` and `sk`, the item's keys, and `"truncated": true` are sent
    /// instead). Default: `Drop`.
    #[serde(default)]
    pub oversize: Oversize,

    /// ARN of an SQS queue. It gets the stream record of every change of which a message was given
    /// up, or that no message could be made of, with the reasons, before the checkpoint passes the
    /// change. A queue that does not take it is the condition `Degraded`, and is tried for a minute.
    /// Default: none.
    /// Example: `arn:aws:sqs:eu-west-1:123456789012:orders-dead-letters`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 200))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^arn:aws[a-z-]*:sqs:[a-z0-9-]+:[0-9]{12}:[a-zA-Z0-9_-]{1,80}([.]fifo)?$')"
    ).message(
        "deadLetterQueueArn must be the ARN of an SQS queue, arn:aws:sqs:<region>:<account>:<queue>"
    ))]
    pub dead_letter_queue_arn: Option<String>,
}

/// What happens to a client that does not read.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum SlowClient {
    /// Its messages wait.
    #[default]
    Wait,
    /// A newer message of the same item takes the place of one that waits.
    Drop,
    /// It is disconnected.
    Disconnect,
}

/// What happens to a message over 128 KB.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema,
)]
pub enum Oversize {
    /// Nobody is told.
    #[default]
    Drop,
    /// The item's keys are sent instead.
    KeysOnly,
}

impl Delivery {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            max_record_age_seconds: default_max_record_age_seconds(),
            max_attempts: None,
            slow_client: SlowClient::default(),
            oversize: Oversize::default(),
            dead_letter_queue_arn: None,
        }
    }
}

fn default_max_record_age_seconds() -> i32 {
    300
}

fn default_events() -> Vec<Event> {
    vec![Event::Modify]
}

fn default_poll_interval_milliseconds() -> i32 {
    250
}

fn default_connection_id_attribute() -> String {
    "connectionId".to_owned()
}

/// By hand, because a bound on a map's values has no attribute of its own.
fn message_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "nullable": true,
        "maxProperties": 32,
        "additionalProperties": { "type": "string", "minLength": 1, "maxLength": 1024 },
        "x-kubernetes-validations": [{
            "rule": "size(self) > 0",
            "message": "message has no field: give it one at least, or leave it out for the default (pk, sk, value)",
        }],
    })
}
