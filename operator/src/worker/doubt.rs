//! Is a shard that is not listed gone? Only the service can tell: a listing may lack one.

use std::time::Duration;

use tokio::time::sleep;

use super::calls::Calls;
use super::shared::Shared;
use super::trouble;
use crate::backoff::Failing;
use crate::record::ShardId;
use crate::stream::{ReadFrom, StreamErrorKind, Streams};
use crate::telemetry::Part;

const LONGEST_WAIT: Duration = Duration::from_secs(1);
const BEFORE_LISTING_AGAIN: Duration = Duration::from_secs(5);

/// Whether a shard that is not listed is gone. If it is there, that is said only after a while: the
/// next listing is to show it.
pub async fn is_gone<S: Streams, C, G>(
    streams: &Calls<S>,
    id: &ShardId,
    shared: &Shared<C, G>,
) -> bool {
    let part = Part::Shard(id.clone());
    let mut failing = Failing::new(LONGEST_WAIT);
    loop {
        let Err(error) = streams.iterator(id, &ReadFrom::Start).await else {
            shared.health.well(&part);
            sleep(BEFORE_LISTING_AGAIN).await;
            return false;
        };
        if matches!(error.kind, StreamErrorKind::NotFound | StreamErrorKind::Trimmed) {
            shared.health.well(&part);
            return true;
        }
        shared.telemetry.retrying(&error);
        let stream = id.stream.arn(&shared.table);
        if let Some(trouble) = trouble::stream(&stream, &error, &mut failing) {
            shared.health.troubled(part.clone(), trouble);
        }
        sleep(failing.wait(&shared.random)).await;
    }
}
