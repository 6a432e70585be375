//! Conditions about streams that end, change or stay empty.

use crate::model::StreamLabel;
use crate::streams::config::Follow;
use crate::streams::listing::Listing;
use crate::streams::problems;
use crate::telemetry::Trouble;
use crate::timing::Failing;

/// What there is to tell where no more changes come, or others than are read.
pub fn ended(
    follow: &Follow,
    table: &str,
    listing: &Listing,
    all_drained: bool,
) -> Option<Trouble> {
    let (newest, _) = listing.newest()?;
    match (follow, &listing.replaced_by) {
        (_, Some(new)) => Some(problems::replaced(&newest.arn(table), &new.arn(table))),
        (Follow::Stream(_), None) if all_drained => Some(problems::disabled(&newest.arn(table))),
        (Follow::Table, None) if all_drained => Some(problems::no_stream(table)),
        _ => None,
    }
}

/// What there is to tell of a stream that is open and shows no shard, once that has lasted.
pub fn shardless(
    table: &str,
    stream: Option<&StreamLabel>,
    failing: &mut Failing,
) -> Option<Trouble> {
    match stream {
        Some(stream) => failing.has_lasted().then(|| problems::shardless(&stream.arn(table))),
        None => {
            failing.worked();
            None
        }
    }
}
