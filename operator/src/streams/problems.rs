//! Problems of streams and shards, as conditions report them. A problem that can pass by itself is
//! reported after 60 s.

use std::time::Duration;

use super::listing::StreamDescription;
use crate::model::{MissingImage, RequiredImages, ShardId};
use crate::streams::service::error::{StreamError, StreamErrorKind};
use crate::telemetry::{Problem, Reason};
use crate::timing::FailureTracker;

const LIST_STREAMS: &str = "dynamodb:ListStreams";

/// Maximum wait between two attempts.
pub const MAX_RETRY_WAIT: Duration = Duration::from_secs(10);

/// Problem of a failed stream request. Returns `None` if it can pass by itself and has lasted less
/// than 60 s.
pub fn request_failed(
    stream: &str,
    error: &StreamError,
    failures: &mut FailureTracker,
) -> Option<Problem> {
    let action = error.action;
    let has_lasted = failures.record_failure();
    let (reason, message) = match error.kind {
        StreamErrorKind::NotFound if action == LIST_STREAMS => {
            let table = stream.split("/stream/").next().unwrap_or_default();
            let message = format!(
                "{action} on {table} failed: table not found; correct tableArn or streamArn"
            );
            (Reason::StreamNotFound, message)
        }
        StreamErrorKind::NotFound => return Some(stream_not_found(stream)),
        StreamErrorKind::AccessDenied => {
            // ListStreams has no resource-level permissions.
            let resource = if action == LIST_STREAMS { "*" } else { stream };
            let message = format!(
                "{action} on {resource} failed: access denied; grant this permission to the operator"
            );
            (Reason::StreamAccessDenied, message)
        }
        StreamErrorKind::NoCredentials => {
            let request = format!("{action} on {stream}");
            return Some(Problem::no_credentials(&request, error.source.as_ref()));
        }
        StreamErrorKind::UntrustedCertificate => {
            return Some(Problem::untrusted_certificate(&format!("{action} on {stream}")));
        }
        StreamErrorKind::Invalid => {
            let message = format!(
                "{action} on {stream} failed: the service rejected the request as invalid; check the sequence numbers in the checkpoint if you edited it"
            );
            (Reason::StreamInvalid, message)
        }
        _ if !has_lasted => return None,
        StreamErrorKind::Throttled => {
            let others = match action {
                "dynamodb:GetRecords" => "consumers of the same shard",
                _ => "programs in this account that describe streams",
            };
            let message =
                format!("{action} on {stream} failed: throttled; check for other {others}");
            (Reason::StreamThrottled, message)
        }
        StreamErrorKind::ExpiredIterator
        | StreamErrorKind::Trimmed
        | StreamErrorKind::Unavailable => (
            Reason::StreamUnavailable,
            format!(
                "{action} on {stream} failed: no usable response; check the network and the AWS service status"
            ),
        ),
    };
    Some(Problem::new(reason, message))
}

/// Problem of a stream that does not exist.
pub fn stream_not_found(stream: &str) -> Problem {
    let message = format!(
        "{stream} cannot be read: stream not found; set streamArn to the table's LatestStreamArn, or use tableArn"
    );
    Problem::new(Reason::StreamNotFound, message)
}

/// Problem of a stream whose table has a newer one.
pub fn stream_replaced(stream: &str, new: &str) -> Problem {
    let table = new.split("/stream/").next().unwrap_or_default();
    let message = format!(
        "{stream} has no new records: it is disabled, and the table's stream is now {new}; replace streamArn with tableArn: {table} to continue with the new stream from its start"
    );
    Problem::new(Reason::StreamReplaced, message)
}

/// Problem of a stream that was read to its end.
pub fn stream_disabled(stream: &str) -> Problem {
    let message = format!(
        "{stream} has no new records: it is disabled and was read to its end; enable a stream on the table, and replace streamArn with tableArn"
    );
    Problem::new(Reason::StreamDisabled, message)
}

/// Problem of a table without an enabled stream.
pub fn no_enabled_stream(table: &str) -> Problem {
    let message = format!(
        "{table} has no new records: it has no enabled stream; enable one with the images that the spec needs, usually NEW_AND_OLD_IMAGES"
    );
    Problem::new(Reason::StreamDisabled, message)
}

/// Message about records that were lost before they were read.
pub fn data_gap(stream: &str, stop_on_gap: bool) -> String {
    let cause = "they were not read within 24 hours, or lack an image that the spec needs";
    match stop_on_gap {
        false => format!(
            "records of {stream} were lost: {cause}; have clients reload what they show (onGap is Continue)"
        ),
        true => format!(
            "records of {stream} were lost: {cause}; set onGap to Continue, or suspend the notifier, edit or delete its checkpoint, and resume it"
        ),
    }
}

/// Problem of a shard that is listed but not found.
pub fn shard_not_found(shard: &ShardId, table: &str) -> Problem {
    let stream = shard.stream.arn(table);
    let message = format!(
        "shard {shard} of {stream} cannot be read: it is listed but not found; no action is needed, the operator retries"
    );
    Problem::new(Reason::ShardNotFound, message)
}

/// Problem of a finished shard without a child, although its stream is open.
pub fn no_child_shard(shard: &ShardId, stream: &str) -> Problem {
    let message = format!(
        "{stream} cannot be read further: no child of shard {shard} is listed; no action is needed, the operator retries"
    );
    Problem::new(Reason::NoChildShard, message)
}

/// Problem of a stream without shards.
pub fn no_shards(stream: &str) -> Problem {
    let message = format!(
        "{stream} cannot be read: no shard is listed; no action is needed, the operator retries"
    );
    Problem::new(Reason::NoShards, message)
}

/// Problem of a shard that waits for earlier records or for the rate limit.
pub fn shard_blocked(table: &str) -> Problem {
    let message = format!(
        "a shard of {table} has not been read for 60 s: waiting for earlier records to be delivered, or rate-limited by --get-records-per-second; check the connections table and API Gateway, or raise the limit"
    );
    Problem::new(Reason::ShardBlocked, message)
}

fn missing_image(missing: &MissingImage) -> Problem {
    Problem::new(Reason::ViewTypeMismatch, missing.to_string())
}

/// Problem of a stream that cannot be read, because its records lack an image that the spec needs.
pub fn unsupported_view(required: &RequiredImages, stream: &StreamDescription) -> Option<Problem> {
    let (view, _) = stream.schema.as_ref()?;
    required.missing_from(*view).map(|missing| missing_image(&missing))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::StreamLabel;
    use crate::telemetry::health::assert_message_form;

    const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders";
    const SHARD: &str = "shardId-00000001573689847184-864758bb";

    #[tokio::test(start_paused = true)]
    async fn names_failure_cause_and_action_in_each_message() {
        let label = StreamLabel::new("2024-12-03T08:06:15.779");
        let (stream, newer) = (label.arn(TABLE), StreamLabel::new("2026-01-01").arn(TABLE));
        let id = ShardId::new(&label, SHARD);
        let mut problems = vec![
            stream_not_found(&stream),
            stream_replaced(&stream, &newer),
            stream_disabled(&stream),
            no_enabled_stream(TABLE),
            shard_not_found(&id, TABLE),
            no_child_shard(&id, &stream),
            no_shards(&stream),
            shard_blocked(TABLE),
        ];
        let mut failures = FailureTracker::new(Duration::ZERO);
        failures.record_failure();
        tokio::time::sleep(Duration::from_secs(120)).await;
        for action in [LIST_STREAMS, "dynamodb:GetRecords"] {
            for kind in [
                StreamErrorKind::NotFound,
                StreamErrorKind::AccessDenied,
                StreamErrorKind::NoCredentials,
                StreamErrorKind::UntrustedCertificate,
                StreamErrorKind::Invalid,
                StreamErrorKind::Throttled,
                StreamErrorKind::Unavailable,
            ] {
                let error = StreamError { action, kind, service_time: None, source: None };
                problems.push(
                    request_failed(&stream, &error, &mut failures).expect("it has lasted 60 s"),
                );
            }
        }
        let mut messages: Vec<_> = problems.into_iter().map(|problem| problem.message).collect();
        messages.extend([false, true].map(|stop_on_gap| data_gap(&stream, stop_on_gap)));
        for message in messages {
            assert_message_form(&message, &[&*stream, &*newer, TABLE, SHARD]);
        }
    }
}
