//! Lists the streams until the consumer can begin to read.

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

/// Parameters of [`list_until_usable`].
#[derive(Clone, Copy, Debug)]
pub struct ListingParams<'a> {
    pub config: &'a ConsumerConfig,
    pub health: &'a Health,
    pub telemetry: &'a NotifierTelemetry,
    pub rng: &'a JitterRng,
}

/// Lists the `known` streams and all later ones, and retries until that succeeds. Without a known
/// stream, it lists the stream to begin with, and waits until its records contain the images that
/// the spec needs.
pub async fn list_until_usable(
    streams: &RateLimitedStreams,
    params: &ListingParams<'_>,
    known: &BTreeSet<StreamLabel>,
) -> Listing {
    let ListingParams { config, health, telemetry, rng } = *params;
    let mut failures = FailureTracker::new(MAX_RETRY_WAIT);
    loop {
        let problem = match shard_lister::list_streams(streams, &config.source, known, rng).await {
            Ok(listing) => match find_problem(config, &listing, known) {
                Some(problem) => Some(problem),
                None => {
                    health.clear(&Component::Stream);
                    return listing;
                }
            },
            Err(error) => {
                telemetry.request_failed(&error);
                problems::request_failed(&config.stream_name(), &error, &mut failures)
            }
        };
        if let Some(problem) = problem {
            health.set_problem(Component::Stream, problem);
        }
        sleep(failures.next_wait(rng)).await;
    }
}

/// The problem that prevents reading the listed streams, if there is one.
fn find_problem(
    config: &ConsumerConfig,
    listing: &Listing,
    known: &BTreeSet<StreamLabel>,
) -> Option<Problem> {
    let newest = listing.newest().filter(|(_, stream)| !stream.is_deleted());
    match (newest, &config.source, &listing.replaced_by) {
        // The images of a successor are checked once the known streams are drained.
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
