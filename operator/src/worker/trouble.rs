//! What a failure of the stream or the checkpoint is called in a condition. What may pass by itself
//! is told only once it has lasted.

use std::time::Duration;

use crate::backoff::Failing;
use crate::checkpoint::{ClaimError, StoreError};
use crate::record::{MissingImage, ShardId};
use crate::stream::{StreamError, StreamErrorKind};
use crate::telemetry::Trouble;

const LIST: &str = "dynamodb:ListStreams";

/// No call may take longer; the AWS clients give up sooner.
pub const CALL_LIMIT: Duration = Duration::from_secs(30);

/// The longest wait between two tries.
pub const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// What to tell of a stream's failure; nothing while it may still pass by itself.
pub fn stream(stream: &str, error: &StreamError, failing: &mut Failing) -> Option<Trouble> {
    let action = error.action;
    let has_lasted = failing.has_lasted();
    let (reason, message, stalled) = match error.kind {
        StreamErrorKind::NotFound if action == LIST => {
            let table = stream.split("/stream/").next().unwrap_or_default();
            ("StreamNotFound", format!("there is no table {table}"), true)
        }
        StreamErrorKind::NotFound => return Some(not_found(stream)),
        StreamErrorKind::AccessDenied => {
            // ListStreams knows no resources.
            let resource = if action == LIST { "*" } else { stream };
            ("StreamAccessDenied", format!("access denied: allow {action} on {resource}"), true)
        }
        StreamErrorKind::NoCredentials => (
            "NoCredentials",
            "the operator has no AWS credentials: give its ServiceAccount a role, or set AWS_PROFILE"
                .to_owned(),
            true,
        ),
        StreamErrorKind::Invalid => {
            let message = format!(
                "{action} on {stream} was refused as invalid: if the checkpoint was edited, a number in it may not be of its shard"
            );
            ("StreamInvalid", message, true)
        }
        _ if !has_lasted => return None,
        StreamErrorKind::Throttled => (
            "StreamThrottled",
            format!(
                "{action} on {stream} has been throttled for a minute: {}",
                if action == "dynamodb:GetRecords" {
                    "is another reader on this shard?"
                } else {
                    "do other programs in this account describe streams too often?"
                }
            ),
            false,
        ),
        StreamErrorKind::ExpiredIterator
        | StreamErrorKind::Trimmed
        | StreamErrorKind::Unavailable => (
            "StreamUnavailable",
            format!("{action} on {stream} has had no usable answer for a minute"),
            false,
        ),
    };
    Some(Trouble { reason, message, stalled })
}

/// A stream that is not there.
pub fn not_found(stream: &str) -> Trouble {
    let message = format!(
        "there is no stream {stream}: write the table's LatestStreamArn, or follow the table by tableArn"
    );
    Trouble { reason: "StreamNotFound", message, stalled: true }
}

/// A stream after which the table has another one.
pub fn replaced(stream: &str, new: &str) -> Trouble {
    let table = new.split("/stream/").next().unwrap_or_default();
    let message = format!(
        "{stream} is disabled, and the table's stream is {new} now: write tableArn: {table} in place of streamArn to go on with it from its start (a new streamArn begins at startingPosition)"
    );
    Trouble { reason: "StreamReplaced", message, stalled: true }
}

/// A stream that was read to its end.
pub fn disabled(stream: &str) -> Trouble {
    let message = format!(
        "{stream} is disabled and has been read to its end: enable a stream of the table again, and write tableArn in place of streamArn to go on with it"
    );
    Trouble { reason: "StreamDisabled", message, stalled: true }
}

/// A table without a stream that gets changes.
pub fn no_stream(table: &str) -> Trouble {
    let message = format!(
        "{table} has no enabled stream: enable one, with the images that the other fields use (usually NEW_AND_OLD_IMAGES)"
    );
    Trouble { reason: "StreamDisabled", message, stalled: true }
}

/// What to tell of records that were lost before they were read, and what follows.
pub fn gap(stream: &str, stop_on_gap: bool) -> String {
    let lost = format!(
        "changes of {stream} were lost: they were not read within the 24 hours for which a stream keeps them, or lack an image that the spec needs"
    );
    match stop_on_gap {
        false => format!(
            "{lost}; reading goes on with the oldest change left, since onGap is Continue: have clients load anew what they show"
        ),
        true => format!(
            "{lost}; nothing more is read, since onGap is Stop: set onGap to Continue to go on with the oldest change left, or suspend the notifier, edit or delete its checkpoint, and resume it"
        ),
    }
}

/// A shard that is listed and yet not found.
pub fn shard(shard: &ShardId, table: &str) -> Trouble {
    let stream = shard.stream.arn(table);
    let message =
        format!("shard {shard} of {stream} is listed, but has not been found for a minute");
    Trouble { reason: "ShardNotFound", message, stalled: false }
}

/// A shard that is at its end, and yet nothing follows it.
pub fn childless(shard: &ShardId, stream: &str) -> Trouble {
    let message = format!(
        "no shard follows {shard} of {stream}, which was read to its end: changes wait until the stream shows one"
    );
    Trouble { reason: "ShardMissing", message, stalled: false }
}

/// A stream of which no shard can be read, since none is there.
pub fn shardless(stream: &str) -> Trouble {
    let message =
        format!("{stream} has shown no shard for a minute: changes wait until it shows one");
    Trouble { reason: "ShardMissing", message, stalled: false }
}

/// A shard that waits: for earlier changes to be delivered, or for its turn to be asked.
pub fn held_up(table: &str) -> Trouble {
    let message = format!(
        "a shard of {table} has not been read for a minute: lookups or messages of earlier changes do not get through, or its calls wait for their turn within --get-records-per-second"
    );
    Trouble { reason: "HeldUp", message, stalled: false }
}

/// A fault of ours.
pub fn fault() -> Trouble {
    let message = "a task of the worker failed by a fault of the operator; it starts again from the checkpoint";
    Trouble { reason: "WorkerFailed", message: message.to_owned(), stalled: false }
}

/// A call that took too long.
pub fn late(action: &'static str, elapsed: tokio::time::error::Elapsed) -> StreamError {
    let (kind, source) = (StreamErrorKind::Unavailable, Some(elapsed.into()));
    StreamError { action, kind, service_time: None, source }
}

/// A view type that lacks an image the spec needs.
pub fn view(missing: &MissingImage) -> Trouble {
    Trouble { reason: "ViewTypeMismatch", message: missing.to_string(), stalled: true }
}

/// A checkpoint that cannot be claimed or stored.
pub fn checkpoint(error: &ClaimError) -> Trouble {
    let (reason, stalled) = match error {
        ClaimError::Lost { .. } => ("ClaimLost", true),
        ClaimError::Format(_) => ("CheckpointInvalid", true),
        ClaimError::Store(StoreError::NotOwned(_)) => ("CheckpointNotOwned", true),
        // Whoever waits for `Ready` would take it for a failure.
        ClaimError::Store(StoreError::NotYetDeleted(_)) => ("CheckpointNotOwned", false),
        ClaimError::Store(StoreError::AccessDenied(_)) => ("CheckpointAccessDenied", true),
        ClaimError::Store(StoreError::TooLarge(_)) => ("CheckpointTooLarge", false),
        ClaimError::Store(StoreError::Conflict | StoreError::Unknown(_)) => {
            ("CheckpointUnavailable", false)
        }
    };
    let message = match error {
        ClaimError::Lost { .. } => error.to_string(),
        ClaimError::Format(why) => format!("{error}: {why}"),
        ClaimError::Store(why) => format!("{error}: {why}"),
    };
    Trouble { reason, message, stalled }
}
