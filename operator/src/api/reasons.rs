//! Reasons of conditions and Events. `docs/conditions.md` is generated from this file.

use super::condition_types::ReadyState;

/// Where a reason appears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// In the conditions of this state of `Ready`.
    Ready(ReadyState),
    /// In the condition `Degraded`.
    Degraded,
    /// In the condition `DataGap`.
    DataGap,
    /// In an Event of the type Warning.
    Event,
}

/// Defines [`Reason`] from rows of name, uses, meaning and action.
macro_rules! reasons {
    ($($reason:ident $uses:tt $meaning:literal $action:literal)+) => {
        /// Reason of a condition or an Event.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Reason {
            $(#[doc = $meaning] $reason,)+
        }

        impl Reason {
            /// Every reason, in the order of `docs/conditions.md`.
            pub const ALL: &[Self] = &[$(Self::$reason),+];

            /// Name in CamelCase, as users see it.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$reason => stringify!($reason),)+
                }
            }

            /// Conditions and Events in which the reason appears.
            pub const fn uses(self) -> &'static [Use] {
                match self {
                    $(Self::$reason => &$uses,)+
                }
            }

            /// Meaning, in one sentence.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$reason => $meaning,)+
                }
            }

            /// Action for a person, in one or two sentences.
            pub const fn action(self) -> &'static str {
                match self {
                    $(Self::$reason => $action,)+
                }
            }
        }
    };
}

const READY: Use = Use::Ready(ReadyState::Ready);
const STARTING: Use = Use::Ready(ReadyState::Starting);
const RETRYING: Use = Use::Ready(ReadyState::Retrying);
const STALLED: Use = Use::Ready(ReadyState::Stalled);

reasons! {
    Reading [READY]
        "The operator is reading every open shard."
        "None."
    Suspended [READY]
        "`suspend` is true, so nothing is read."
        "Set `suspend` to false to continue from the checkpoint."
    Starting [STARTING]
        "The operator is starting to read the shards of the stream."
        "Wait. If a problem delays the start, its reason replaces this one within 60 s."
    Invalid [STALLED]
        "A field, an expression or a domain of the spec is invalid."
        "Fix the field that the message names."
    IdentityNotAllowed [STALLED]
        "The namespace may not use the operator's own AWS identity."
        "Ask an administrator to add it to `--operator-identity-namespaces`, or to the value `aws.operatorIdentity.namespaces` of the chart."
    NoCredentials [STALLED, Use::Degraded]
        "The operator has no AWS credentials."
        "Fix the cause that the message names, such as the IAM role of the operator's ServiceAccount, or the AWS profile."
    UntrustedCertificate [STALLED, Use::Degraded]
        "The issuer of the certificate of an AWS endpoint is not trusted."
        "If a proxy inspects TLS, set the operator's environment variable `AWS_CA_BUNDLE` to a PEM file with its root certificate."
    StreamNotFound [STALLED]
        "The stream or the table does not exist."
        "Set `streamArn` to the table's `LatestStreamArn`, or correct `tableArn`."
    StreamAccessDenied [STALLED]
        "The operator lacks a permission on the stream."
        "Grant the IAM action that the message names."
    StreamInvalid [STALLED]
        "DynamoDB Streams rejects a request as invalid."
        "If you edited the checkpoint, check its sequence numbers. Otherwise, report a bug in the operator."
    StreamReplaced [STALLED]
        "The stream is disabled, and the table has a newer stream."
        "Replace `streamArn` with `tableArn`. With a new `streamArn`, reading would begin at `startingPosition`."
    StreamDisabled [STALLED]
        "The stream is disabled and has been read to its end, or the table has no enabled stream."
        "Enable a stream on the table. If the spec has `streamArn`, replace it with `tableArn`."
    StreamThrottled [RETRYING]
        "Requests to the stream have been throttled for 60 s."
        "Find other consumers of the stream, and other programs in the account that send DescribeStream requests. Reduce their requests."
    StreamUnavailable [RETRYING]
        "Requests to the stream have had no usable response for 60 s."
        "Check the network and the AWS service status. The operator retries."
    ViewTypeMismatch [STALLED]
        "The records of the stream lack an image that the spec needs."
        "Enable a stream with `NEW_AND_OLD_IMAGES`, or remove the fields that need the image."
    ShardNotFound [RETRYING]
        "A shard is listed, but requests for it have failed with `ResourceNotFoundException` for 60 s."
        "None. The operator retries until DynamoDB Streams finds the shard."
    NoChildShard [RETRYING]
        "A shard has been read to its end, but no listing shows a child shard."
        "None. The operator retries until a listing shows a child shard."
    NoShards [RETRYING]
        "Listings of the stream have shown no shards for 60 s."
        "None. The operator retries until a listing shows a shard."
    ShardBlocked [RETRYING]
        "A shard has not been read for 60 s, because earlier records have not been delivered or its requests are rate-limited."
        "Look for errors of the connections table and API Gateway in the operator's log. If `stream_notifier_stream_rate_limit_wait_seconds_total` grows, raise `--get-records-per-second`."
    DataGap [STALLED, Use::Event]
        "Records were lost before they were read, and reading stops if `onGap` is `Stop`."
        "Make clients reload the data that they show. With `onGap: Stop`, set `onGap` to `Continue`, or suspend the notifier until you have edited or deleted its checkpoint."
    WorkerFailed [RETRYING]
        "A task of the worker panicked because of a bug in the operator."
        "Report the bug with the operator's log. The worker restarts from the checkpoint."
    CheckpointTakenOver [STALLED]
        "Another operator has claimed the checkpoint."
        "Run at most one operator per namespace, and restart the remaining one."
    CheckpointInvalid [STALLED]
        "A key of the checkpoint ConfigMap cannot be parsed."
        "Fix the key that the message names, or delete the ConfigMap to start again at `startingPosition`."
    CheckpointNotOwned [STALLED, RETRYING]
        "The checkpoint ConfigMap belongs to another object, or still to a deleted notifier of the same name."
        "If another object owns the ConfigMap, delete the ConfigMap or rename the notifier. Otherwise, wait until Kubernetes deletes it."
    CheckpointAccessDenied [STALLED]
        "The operator lacks a permission on ConfigMaps."
        "Grant `get`, `create` and `patch` on ConfigMaps to the operator's ServiceAccount."
    CheckpointTooLarge [RETRYING]
        "The checkpoint has more shards than a ConfigMap can hold."
        "None. Finished shards are removed within 24 hours, and no record is lost."
    CheckpointUnavailable [RETRYING]
        "The operator cannot load or store the checkpoint in the Kubernetes API."
        "Check the API server. The operator retries."
    ConnectionsNotFound [STALLED]
        "The connections table does not exist."
        "Create the table, or correct `connections.tableName` or `connections.region`."
    ConnectionsIndexNotFound [STALLED]
        "The connections table has no such index."
        "Create the index, or correct `connections.indexName`."
    ConnectionsKeyMismatch [STALLED]
        "`connections.partitionKey` is not the partition key of the table or index."
        "Correct `connections.partitionKey`."
    ConnectionsAccessDenied [STALLED]
        "The operator lacks a permission on the connections table."
        "Grant the IAM action that the message names."
    ConnectionsUnavailable [RETRYING]
        "Lookups of connections have had no usable response for 60 s."
        "Check the network and the table's read capacity. The operator retries."
    AllConnectionsGone [STALLED]
        "At least 20 connections returned 410 within 60 s and no post succeeded, so the operator deletes no rows."
        "Check `webSocket.domain` and `webSocket.stage`."
    GatewayForbidden [STALLED]
        "API Gateway denies posts, so messages are held and do not expire."
        "Grant `execute-api:ManageConnections`, and check `webSocket.domain` and `webSocket.stage`."
    GatewayMisconfigured [STALLED]
        "The endpoint is not a WebSocket API, so messages are held and do not expire."
        "Check `webSocket.domain` and `webSocket.stage`."
    GatewayUnreachable [RETRYING]
        "The operator cannot connect to the endpoint, so messages are held and do not expire."
        "Check `webSocket.domain` and the network."
    GatewayUnavailable [RETRYING]
        "Posts have had no usable response for 60 s."
        "Check the AWS service status of API Gateway. Messages older than `delivery.maxRecordAgeSeconds` are dropped."
    StaleRowDeletionDenied [Use::Degraded]
        "The operator lacks permission to delete the rows of closed connections."
        "Grant `dynamodb:GetItem` and `dynamodb:DeleteItem` on the connections table."
    ConnectionIdMissing [Use::Degraded]
        "At least one row has no usable connection id, so its connection receives no messages."
        "Correct `connections.connectionIdAttribute`, or add the attribute to the projection of the index."
    InvalidTtlUnit [Use::Degraded]
        "At least one row has a TTL in milliseconds, so it never expires."
        "Write the TTL in seconds since 1970."
    DisconnectForbidden [Use::Degraded]
        "API Gateway denies requests to disconnect slow clients."
        "Grant `execute-api:ManageConnections` for `DELETE`, or change `delivery.slowClient`."
    DeadLetterQueueNotFound [Use::Degraded]
        "The dead-letter queue does not exist, so dead letters are lost after 60 s."
        "Create the queue, or correct `delivery.deadLetterQueueArn`."
    DeadLetterQueueAccessDenied [Use::Degraded]
        "The operator lacks permission to send to the dead-letter queue, so dead letters are lost after 60 s."
        "Grant `sqs:SendMessage`. For an encrypted queue, also grant `kms:GenerateDataKey` and `kms:Decrypt` on its KMS key."
    DeadLetterQueueUnavailable [Use::Degraded]
        "The dead-letter queue has had no usable response for 30 s; dead letters are lost after 60 s."
        "Check the queue and the AWS service status."
    RecordsLost [Use::DataGap]
        "Records were not read within 24 hours, or lack an image that the spec needs."
        "Make clients reload the data that they show."
    InvalidRecord [Use::Event]
        "An expression failed on a record, so no client receives a message about it."
        "Fix the expression. The operator's log has the sequence number of the record."
}

impl Reason {
    /// Whether the problem lasts until a person acts.
    ///
    /// [`Self::CheckpointNotOwned`] has both cases, so its caller decides.
    pub fn is_stalled(self) -> bool {
        self.uses().contains(&STALLED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explains_each_reason_in_short_sentences() {
        let sentences = |text: &str| text.matches(". ").count() + 1;
        for reason in Reason::ALL {
            let (name, meaning, action) = (reason.as_str(), reason.meaning(), reason.action());
            assert!(meaning.ends_with('.') && sentences(meaning) == 1, "{name}: {meaning}");
            assert!(action.ends_with('.') && sentences(action) <= 2, "{name}: {action}");
            assert!(meaning.split(' ').count() <= 25, "{name}: {meaning}");
            assert!(!meaning.contains('|') && !action.contains('|'), "{name} breaks its table");
        }
    }

    #[test]
    fn allows_both_stalled_and_retrying_for_one_reason_only() {
        let has_both = |reason: &&Reason| reason.is_stalled() && reason.uses().contains(&RETRYING);
        let both: Vec<_> = Reason::ALL.iter().filter(has_both).collect();
        assert_eq!(both, [&Reason::CheckpointNotOwned]);
    }
}
