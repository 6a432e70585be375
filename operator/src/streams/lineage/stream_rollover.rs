//! When a stream is at its end, so that the one after it may begin: not because one listing says so,
//! since that may lack a shard, but when others after it, the last one a while later, say the same.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::StreamLabel;

/// Listings are behind by seconds: one that begins so much later is not.
const CONFIRM_AFTER: Duration = Duration::from_secs(15);

/// So many listings in a row lack no shard that is there.
const MIN_LISTINGS: u32 = 3;

/// Which streams seem to be at their end.
#[derive(Debug, Default)]
pub struct DrainTracker(BTreeMap<StreamLabel, DrainEvidence>);

/// A stream that seems to be at its end.
#[derive(Debug)]
struct DrainEvidence {
    since: Instant,
    /// When the last listing began that says so.
    listed: Instant,
    /// How many do.
    listings: u32,
}

impl DrainTracker {
    /// Whether a stream is at its end for certain, given that it seems so now, or not, by a listing
    /// that began at `listed`.
    pub fn observe(
        &mut self,
        stream: &StreamLabel,
        seems: bool,
        is_gone: bool,
        listed: Instant,
        now: Instant,
    ) -> bool {
        if !seems {
            self.0.remove(stream);
            return false;
        }
        let first = || DrainEvidence { since: now, listed, listings: 1 };
        let seeming = self.0.entry(stream.clone()).or_insert_with(first);
        if listed > seeming.listed {
            seeming.listed = listed;
            seeming.listings += 1;
        }
        let DrainEvidence { since, listings, .. } = *seeming;
        is_gone || listings >= MIN_LISTINGS && listed.duration_since(since) >= CONFIRM_AFTER
    }

    /// When to list again to be certain.
    pub fn next_listing_at(&self, now: Instant) -> Option<Instant> {
        let looks = self.0.values().flat_map(|DrainEvidence { since, .. }| {
            (1..MIN_LISTINGS).map(|look| *since + CONFIRM_AFTER * look / (MIN_LISTINGS - 1))
        });
        looks.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_stream_is_at_its_end_once_it_has_been_for_a_while() {
        let (stream, mut drained) = (StreamLabel::new("l"), DrainTracker::default());
        let begun = Instant::now();
        let after = |seconds| begun + Duration::from_secs(seconds);
        let mut note = |seems, listed, now| drained.observe(&stream, seems, false, listed, now);
        assert!(!note(true, begun, begun));
        assert!(!note(true, begun, after(15)), "nothing was listed since");
        assert!(!note(false, after(15), after(15)), "a shard turned up");
        assert!(!note(true, after(20), after(20)));
        assert!(!note(true, after(36), after(36)), "two may lack the same shard");
        assert!(note(true, after(37), after(37)));
        let mut drained = DrainTracker::default();
        for (listed, look_at) in [(20, Some(27_500)), (28, Some(35_000)), (35, None)] {
            let is_certain = drained.observe(&stream, true, false, after(listed), after(listed));
            assert_eq!(is_certain, look_at.is_none());
            let looks = drained.next_listing_at(after(listed));
            assert_eq!(looks, look_at.map(|at| begun + Duration::from_millis(at)));
        }
        assert!(
            DrainTracker::default().observe(&stream, true, true, begun, begun),
            "there is nothing to come"
        );
    }
}
