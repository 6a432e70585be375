//! Is a shard that is not listed gone? Only the service can tell: a listing may lack one.

use std::time::Duration;

use tokio::time::sleep;

use crate::model::ShardId;
use crate::streams::context::ConsumerContext;
use crate::streams::problems;
use crate::streams::retention::may_be_trimmed;
use crate::streams::service::error::StreamErrorKind;
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::streams::service::streams::{IteratorStart, Streams};
use crate::telemetry::Component;
use crate::timing::FailureTracker;

const MAX_BACKOFF: Duration = Duration::from_secs(1);
const LISTING_DELAY: Duration = Duration::from_secs(5);

/// Whether a shard that is not listed is gone. If it is there, or not old enough to be gone, that is
/// said only after a while: the next listing is to show it.
pub async fn probe_parent(
    streams: &RateLimitedStreams,
    id: &ShardId,
    shared: &ConsumerContext,
) -> bool {
    let part = Component::Shard(id.clone());
    let mut failing = FailureTracker::new(MAX_BACKOFF);
    loop {
        let error = match streams.get_iterator(id, &IteratorStart::Start).await {
            Err(error) if !is_about_shard(error.kind) => error,
            answer => {
                shared.health.clear(&part);
                let is_gone = answer.is_err() && may_be_trimmed(id, shared.clock.now());
                if !is_gone {
                    sleep(LISTING_DELAY).await;
                }
                return is_gone;
            }
        };
        shared.telemetry.retry(&error);
        let stream = id.stream.arn(&shared.config.table);
        if let Some(trouble) = problems::request_failed(&stream, &error, &mut failing) {
            shared.health.set_problem(part.clone(), trouble);
        }
        sleep(failing.next_wait(&shared.rng)).await;
    }
}

fn is_about_shard(kind: StreamErrorKind) -> bool {
    matches!(kind, StreamErrorKind::NotFound | StreamErrorKind::Trimmed)
}
