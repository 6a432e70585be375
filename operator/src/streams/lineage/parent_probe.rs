//! Probes a parent shard that is missing from a listing to find out whether it was trimmed. A
//! listing can lack a shard that exists, so only the service can decide.

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

/// What the service says about a shard that its listings lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ParentState {
    /// The shard and its records no longer exist.
    Trimmed,
    /// The shard exists, or is too young to be trimmed.
    Exists,
}

/// Asks for an iterator of an unlisted shard, to find out whether the shard was trimmed. If it
/// exists, the function returns after a delay, so that the next listing can show the shard.
pub async fn probe_parent(
    streams: &RateLimitedStreams,
    id: &ShardId,
    context: &ConsumerContext,
) -> ParentState {
    let component = Component::Shard(id.clone());
    let mut failures = FailureTracker::new(MAX_BACKOFF);
    loop {
        let error = match streams.get_iterator(id, &IteratorStart::TrimHorizon).await {
            Err(error) if !is_about_shard(error.kind) => error,
            result => {
                context.health.clear(&component);
                if result.is_err() && may_be_trimmed(id, context.clock.now()) {
                    return ParentState::Trimmed;
                }
                sleep(LISTING_DELAY).await;
                return ParentState::Exists;
            }
        };
        context.telemetry.request_failed(&error);
        let stream = id.stream.arn(&context.config.table);
        if let Some(problem) = problems::request_failed(&stream, &error, &mut failures) {
            context.health.set_problem(component.clone(), problem);
        }
        sleep(failures.next_wait(&context.rng)).await;
    }
}

fn is_about_shard(kind: StreamErrorKind) -> bool {
    matches!(kind, StreamErrorKind::NotFound | StreamErrorKind::Trimmed)
}
