//! Lists the streams until reading can begin.

use std::collections::BTreeSet;

use tokio::time::sleep;

use super::shard_lister;
use crate::model::StreamLabel;
use crate::streams::config::{ConsumerConfig, Follow};
use crate::streams::listing::Listing;
use crate::streams::problems;
use crate::streams::problems::LONGEST_WAIT;
use crate::streams::service::rate_limited::Calls;
use crate::telemetry::{Health, NotifierTelemetry, Part, Trouble};
use crate::timing::{Failing, Random};

/// What to list, and where problems are reported.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Which streams to consume.
    pub config: &'a ConsumerConfig,
    /// Where problems are reported.
    pub health: &'a Health,
    /// Where retries are logged.
    pub telemetry: &'a NotifierTelemetry,
    /// Spreads waits.
    pub random: &'a Random,
}

/// The shards of the `known` streams and of those after them, once they can be described; without a
/// known one, of the stream that reading would begin with, which must have the images that the spec
/// needs.
pub async fn listed(streams: &Calls, ask: &Asked<'_>, known: &BTreeSet<StreamLabel>) -> Listing {
    let Asked { config, health, telemetry, random } = *ask;
    let mut failing = Failing::new(LONGEST_WAIT);
    loop {
        let trouble = match shard_lister::list(streams, &config.follow, known, random).await {
            Ok(listing) => match unfit(config, &listing, known) {
                Some(trouble) => Some(trouble),
                None => {
                    health.well(&Part::Stream);
                    return listing;
                }
            },
            Err(error) => {
                telemetry.retrying(&error);
                problems::stream(&config.stream_name(), &error, &mut failing)
            }
        };
        if let Some(trouble) = trouble {
            health.troubled(Part::Stream, trouble);
        }
        sleep(failing.wait(random)).await;
    }
}

/// Why reading cannot begin, or go on, with what is listed.
fn unfit(
    config: &ConsumerConfig,
    listing: &Listing,
    known: &BTreeSet<StreamLabel>,
) -> Option<Trouble> {
    let newest = listing.newest();
    let found = newest.filter(|(_, stream)| !stream.is_gone());
    match (found, &config.follow, &listing.replaced_by) {
        // One that follows those that are known is looked at once they are read.
        (Some((label, stream)), _, _) if known.is_empty() || known.contains(label) => {
            problems::unsupported_view(&config.required_images, stream)
        }
        _ if !known.is_empty() => None,
        (_, _, Some(new)) => {
            Some(problems::replaced(&config.stream_name(), &new.arn(&config.table)))
        }
        (_, Follow::Stream(_), None) => Some(problems::not_found(&config.stream_name())),
        (_, Follow::Table, None) => Some(problems::no_stream(&config.table)),
    }
}
