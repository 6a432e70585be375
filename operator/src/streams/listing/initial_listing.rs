//! Lists the streams until reading can begin.

use std::collections::BTreeSet;

use tokio::time::sleep;

use super::shard_lister;
use crate::model::StreamLabel;
use crate::streams::config::{ConsumerConfig, StreamSource};
use crate::streams::listing::Listing;
use crate::streams::problems;
use crate::streams::problems::MAX_RETRY_WAIT;
use crate::streams::service::rate_limited::RateLimitedStreams;
use crate::telemetry::{Component, Health, NotifierTelemetry, Problem};
use crate::timing::{FailureTracker, JitterRng};

/// What to list, and where problems are reported.
#[derive(Clone, Copy, Debug)]
pub struct ListingParams<'a> {
    /// Which streams to consume.
    pub config: &'a ConsumerConfig,
    /// Where problems are reported.
    pub health: &'a Health,
    /// Where retries are logged.
    pub telemetry: &'a NotifierTelemetry,
    /// Spreads waits.
    pub random: &'a JitterRng,
}

/// The shards of the `known` streams and of those after them, once they can be described; without a
/// known one, of the stream that reading would begin with, which must have the images that the spec
/// needs.
pub async fn list_until_usable(
    streams: &RateLimitedStreams,
    ask: &ListingParams<'_>,
    known: &BTreeSet<StreamLabel>,
) -> Listing {
    let ListingParams { config, health, telemetry, random } = *ask;
    let mut failing = FailureTracker::new(MAX_RETRY_WAIT);
    loop {
        let trouble = match shard_lister::list_streams(streams, &config.source, known, random).await
        {
            Ok(listing) => match find_problem(config, &listing, known) {
                Some(trouble) => Some(trouble),
                None => {
                    health.clear(&Component::Stream);
                    return listing;
                }
            },
            Err(error) => {
                telemetry.retry(&error);
                problems::request_failed(&config.stream_name(), &error, &mut failing)
            }
        };
        if let Some(trouble) = trouble {
            health.set_problem(Component::Stream, trouble);
        }
        sleep(failing.next_wait(random)).await;
    }
}

/// Why reading cannot begin, or go on, with what is listed.
fn find_problem(
    config: &ConsumerConfig,
    listing: &Listing,
    known: &BTreeSet<StreamLabel>,
) -> Option<Problem> {
    let newest = listing.newest();
    let found = newest.filter(|(_, stream)| !stream.is_trimmed());
    match (found, &config.source, &listing.replaced_by) {
        // One that follows those that are known is looked at once they are read.
        (Some((label, stream)), _, _) if known.is_empty() || known.contains(label) => {
            problems::unsupported_view(&config.required_images, stream)
        }
        _ if !known.is_empty() => None,
        (_, _, Some(new)) => {
            Some(problems::stream_replaced(&config.stream_name(), &new.arn(&config.table)))
        }
        (_, StreamSource::Stream(_), None) => {
            Some(problems::stream_not_found(&config.stream_name()))
        }
        (_, StreamSource::Table, None) => Some(problems::no_enabled_stream(&config.table)),
    }
}
