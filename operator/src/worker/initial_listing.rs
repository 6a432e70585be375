//! Lists the streams until reading can begin.

use std::collections::BTreeSet;

use tokio::time::sleep;

use super::calls::Calls;
use super::sweep;
use super::trouble::{self, LONGEST_WAIT};
use crate::backoff::{Failing, Random};
use crate::record::StreamLabel;
use crate::stream::{ConsumerConfig, Follow, Listing};
use crate::telemetry::{Health, NotifierTelemetry, Part, Trouble};

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
        let trouble = match sweep::list(streams, &config.follow, known, random).await {
            Ok(listing) => match unfit(config, &listing, known) {
                Some(trouble) => Some(trouble),
                None => {
                    health.well(&Part::Stream);
                    return listing;
                }
            },
            Err(error) => {
                telemetry.retrying(&error);
                trouble::stream(&config.stream_name(), &error, &mut failing)
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
            trouble::unsupported_view(&config.required_images, stream)
        }
        _ if !known.is_empty() => None,
        (_, _, Some(new)) => {
            Some(trouble::replaced(&config.stream_name(), &new.arn(&config.table)))
        }
        (_, Follow::Stream(_), None) => Some(trouble::not_found(&config.stream_name())),
        (_, Follow::Table, None) => Some(trouble::no_stream(&config.table)),
    }
}
