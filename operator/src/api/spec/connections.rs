//! Connections table and WebSocket API of the spec.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Table that stores the connections, and the query that selects them.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.partitionKey) == has(self.value)").message(
    "set both connections.partitionKey and connections.value, or omit both to send each message to every connection"
))]
pub struct Connections {
    /// Name of the connections table, which must be in the account of the stream.
    ///
    /// 3 to 255 characters. Example: `sample-connections-dev`.
    #[schemars(length(min = 3, max = 255), pattern("^[a-zA-Z0-9_.-]+$"))]
    pub table_name: String,

    /// AWS region of the connections table.
    ///
    /// Default: the region of the stream. Example: `eu-west-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 32))]
    #[x_kube(validation = Rule::new(
        "self.matches('^[a-z]+(-[a-z]+)+-[0-9]+$')"
    ).message("connections.region must be an AWS region such as eu-west-1"))]
    pub region: Option<String>,

    /// Name of the index to query.
    ///
    /// The projection of the index must include `connectionIdAttribute` and, if set,
    /// `ttlAttribute`. An index is eventually consistent, so a client whose row is stored just
    /// before a change can miss the change. Without `indexName`, the operator reads the table with
    /// strongly consistent reads. 3 to 255 characters.
    ///
    /// Default: none, so the operator queries the table. Example: `sk-index`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 255), pattern("^[a-zA-Z0-9_.-]+$"))]
    pub index_name: Option<String>,

    /// Partition key of the table or index to query.
    ///
    /// Set it together with `value`. 1 to 255 characters.
    ///
    /// Default: none. The operator then scans the table or index and sends each message to every
    /// connection. Example: `sk`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub partition_key: Option<String>,

    /// CEL expression for the partition key value to look up.
    ///
    /// Set it together with `partitionKey`. It must return a value of the type of that key: string,
    /// number or binary. It sees the same variables as `message`. 1 to 1,024 characters.
    ///
    /// Default: none. Example: `keys.SK.split('#')[1]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub value: Option<String>,

    /// Attribute of the row that holds the connection id.
    ///
    /// 1 to 255 characters. Default: `connectionId`. Example: `connection_id`.
    #[serde(default = "default_connection_id_attribute")]
    #[schemars(length(min = 1, max = 255))]
    pub connection_id_attribute: String,

    /// Attribute of the row that holds its expiry time, in seconds since 1970.
    ///
    /// Usually this is the TTL attribute of the table. The operator skips expired rows at once;
    /// DynamoDB can take days to delete them. 1 to 255 characters.
    ///
    /// Default: none, so no row is skipped. Example: `expiresAt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub ttl_attribute: Option<String>,

    /// Time in seconds for which later records reuse the result of a lookup.
    ///
    /// A cache reduces the number of queries and scans. A client that has just connected can miss
    /// changes during this time. At 0, the operator looks up connections after it reads a record. A
    /// client whose row was stored before the change then receives the message. Records that are
    /// read together share a lookup in either case.
    ///
    /// Minimum: 0. Maximum: 300. Default: 0. Example: `5`.
    #[serde(default)]
    #[schemars(range(min = 0, max = 300))]
    pub cache_seconds: i32,
}

/// API Gateway WebSocket API to which the operator posts the messages.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(
        r"!self.domain.matches('[.]execute-api[.]') || has(self.stage)"
    ).message("webSocket.stage is required with an execute-api domain: copy a StageName from `aws apigatewayv2 get-stages`"),
    validation = Rule::new(
        r"!self.domain.matches('[.]execute-api[.]') || !has(self.region) || self.domain.contains('.execute-api.' + self.region + '.')"
    ).message("webSocket.region differs from the region in the execute-api domain: remove webSocket.region")
)]
pub struct WebSocket {
    /// Domain of the API, without scheme, port or path.
    ///
    /// Write `<api-id>.execute-api.<region>.amazonaws.com`, or a custom domain that the operator
    /// allows (`--allowed-websocket-domains`). 4 to 253 characters.
    ///
    /// Example: `abcdefghij.execute-api.eu-west-1.amazonaws.com`.
    #[schemars(length(min = 4, max = 253))]
    #[x_kube(validation = Rule::new(
        r"self.matches('^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?[.])+[a-z][a-z0-9-]{0,61}[a-z0-9]$')"
    ).message(
        "webSocket.domain must be a lower-case domain name without scheme, port or path, such as abcdefghij.execute-api.eu-west-1.amazonaws.com"
    ))]
    pub domain: String,

    /// Stage of the API.
    ///
    /// Required with an execute-api domain. With a custom domain, write the API mapping key, or
    /// omit the field if the mapping has none. 1 to 128 characters.
    ///
    /// Default: none. Example: `api`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), pattern("^[a-zA-Z0-9_$-][a-zA-Z0-9_$.-]*$"))]
    pub stage: Option<String>,

    /// AWS region of the API. The operator signs requests for this region.
    ///
    /// Set it if a custom domain belongs to an API in a different region from the stream. Omit it
    /// with an execute-api domain, which contains the region.
    ///
    /// Default: the region in the execute-api domain, or else the region of the stream.
    /// Example: `eu-west-1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 5, max = 32), pattern("^[a-z]{2,}(-[a-z]+)+-[0-9]+$"))]
    pub region: Option<String>,
}

fn default_connection_id_attribute() -> String {
    "connectionId".to_owned()
}
