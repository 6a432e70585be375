//! Is a shard that is not listed gone? Only the service can tell: a listing may lack one.

use std::time::Duration;

use tokio::time::sleep;

use crate::model::ShardId;
use crate::streams::context::ConsumerContext;
use crate::streams::problems;
use crate::streams::retention::may_be_gone;
use crate::streams::service::error::StreamErrorKind;
use crate::streams::service::rate_limited::Calls;
use crate::streams::service::streams::{ReadFrom, Streams};
use crate::telemetry::Part;
use crate::timing::Failing;

const LONGEST_WAIT: Duration = Duration::from_secs(1);
const BEFORE_LISTING_AGAIN: Duration = Duration::from_secs(5);

/// Whether a shard that is not listed is gone. If it is there, or not old enough to be gone, that is
/// said only after a while: the next listing is to show it.
pub async fn is_gone(streams: &Calls, id: &ShardId, shared: &ConsumerContext) -> bool {
    let part = Part::Shard(id.clone());
    let mut failing = Failing::new(LONGEST_WAIT);
    loop {
        let error = match streams.iterator(id, &ReadFrom::Start).await {
            Err(error) if !is_about_shard(error.kind) => error,
            answer => {
                shared.health.well(&part);
                let is_gone = answer.is_err() && may_be_gone(id, shared.clock.now());
                if !is_gone {
                    sleep(BEFORE_LISTING_AGAIN).await;
                }
                return is_gone;
            }
        };
        shared.telemetry.retrying(&error);
        let stream = id.stream.arn(&shared.config.table);
        if let Some(trouble) = problems::stream(&stream, &error, &mut failing) {
            shared.health.troubled(part.clone(), trouble);
        }
        sleep(failing.wait(&shared.random)).await;
    }
}

fn is_about_shard(kind: StreamErrorKind) -> bool {
    matches!(kind, StreamErrorKind::NotFound | StreamErrorKind::Trimmed)
}
