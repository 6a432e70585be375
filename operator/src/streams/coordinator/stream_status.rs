//! Conditions about streams that end, change or stay empty.

use crate::model::StreamLabel;
use crate::streams::config::StreamSource;
use crate::streams::listing::Listing;
use crate::streams::problems;
use crate::telemetry::Problem;
use crate::timing::FailureTracker;

/// What there is to tell where no more changes come, or others than are read.
pub fn stream_end_problem(
    follow: &StreamSource,
    table: &str,
    listing: &Listing,
    all_drained: bool,
) -> Option<Problem> {
    let (newest, _) = listing.newest()?;
    match (follow, &listing.replaced_by) {
        (_, Some(new)) => Some(problems::stream_replaced(&newest.arn(table), &new.arn(table))),
        (StreamSource::Stream(_), None) if all_drained => {
            Some(problems::stream_disabled(&newest.arn(table)))
        }
        (StreamSource::Table, None) if all_drained => Some(problems::no_enabled_stream(table)),
        _ => None,
    }
}

/// What there is to tell of a stream that is open and shows no shard, once that has lasted.
pub fn no_shards_problem(
    table: &str,
    stream: Option<&StreamLabel>,
    failing: &mut FailureTracker,
) -> Option<Problem> {
    match stream {
        Some(stream) => failing.record_failure().then(|| problems::no_shards(&stream.arn(table))),
        None => {
            failing.record_success();
            None
        }
    }
}
