//! Problems of streams that are disabled, replaced or without shards.

use crate::model::StreamLabel;
use crate::streams::config::StreamSource;
use crate::streams::listing::Listing;
use crate::streams::problems;
use crate::telemetry::Problem;
use crate::timing::FailureTracker;

/// Problem of streams that receive no more records, or of a stream that another one replaced.
pub fn stream_end_problem(
    source: &StreamSource,
    table: &str,
    listing: &Listing,
    all_drained: bool,
) -> Option<Problem> {
    let (newest, _) = listing.newest()?;
    match (source, &listing.replaced_by) {
        (_, Some(new)) => Some(problems::stream_replaced(&newest.arn(table), &new.arn(table))),
        (StreamSource::Stream(_), None) if all_drained => {
            Some(problems::stream_disabled(&newest.arn(table)))
        }
        (StreamSource::Table, None) if all_drained => Some(problems::no_enabled_stream(table)),
        _ => None,
    }
}

/// Problem of an open stream that has had no shard for 60 s. `stream` is `None` if every open
/// stream has one.
pub fn no_shards_problem(
    table: &str,
    stream: Option<&StreamLabel>,
    failures: &mut FailureTracker,
) -> Option<Problem> {
    match stream {
        Some(stream) => failures.record_failure().then(|| problems::no_shards(&stream.arn(table))),
        None => {
            failures.record_success();
            None
        }
    }
}
