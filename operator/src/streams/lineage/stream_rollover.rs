//! Decides when a stream is drained, so that its successor can begin. One listing is not enough,
//! because it can lack a shard. Several listings must agree, and the last one must begin 15 s after
//! the first sign.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::StreamLabel;

/// A listing that begins this long after the first sign is not stale. Listings are stale by
/// seconds.
const CONFIRM_AFTER: Duration = Duration::from_secs(15);

/// Number of consecutive listings that do not all lack the same existing shard.
const MIN_LISTINGS: u32 = 3;

/// Tracks the streams that seem to be drained.
#[derive(Debug, Default)]
pub struct DrainTracker(BTreeMap<StreamLabel, DrainEvidence>);

/// Evidence that a stream is drained.
#[derive(Debug)]
struct DrainEvidence {
    since: Instant,
    /// When the last listing that confirmed it began.
    last_listing: Instant,
    /// Number of listings that confirmed it.
    listings: u32,
}

impl DrainTracker {
    /// Records whether a stream seems to be drained, according to a listing that began at
    /// `listing_started`. Returns whether this is confirmed. A deleted stream needs no
    /// confirmation.
    pub fn observe(
        &mut self,
        stream: &StreamLabel,
        seems_drained: bool,
        is_deleted: bool,
        listing_started: Instant,
        now: Instant,
    ) -> bool {
        if !seems_drained {
            self.0.remove(stream);
            return false;
        }
        let first = || DrainEvidence { since: now, last_listing: listing_started, listings: 1 };
        let evidence = self.0.entry(stream.clone()).or_insert_with(first);
        if listing_started > evidence.last_listing {
            evidence.last_listing = listing_started;
            evidence.listings += 1;
        }
        let DrainEvidence { since, listings, .. } = *evidence;
        is_deleted
            || listings >= MIN_LISTINGS && listing_started.duration_since(since) >= CONFIRM_AFTER
    }

    /// When to request the next listing that can confirm a drained stream.
    pub fn next_listing_at(&self, now: Instant) -> Option<Instant> {
        let times = self.0.values().flat_map(|DrainEvidence { since, .. }| {
            (1..MIN_LISTINGS).map(|n| *since + CONFIRM_AFTER * n / (MIN_LISTINGS - 1))
        });
        times.filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn confirms_a_drained_stream_by_three_listings_over_15_s() {
        let (stream, mut tracker) = (StreamLabel::new("l"), DrainTracker::default());
        let started = Instant::now();
        let after = |seconds| started + Duration::from_secs(seconds);
        let mut observe = |seems, listed, now| tracker.observe(&stream, seems, false, listed, now);
        assert!(!observe(true, started, started));
        assert!(!observe(true, started, after(15)), "there was no listing since");
        assert!(!observe(false, after(15), after(15)), "a shard appeared");
        assert!(!observe(true, after(20), after(20)));
        assert!(!observe(true, after(36), after(36)), "two listings can lack the same shard");
        assert!(observe(true, after(37), after(37)));
        let mut tracker = DrainTracker::default();
        for (listed, next) in [(20, Some(27_500)), (28, Some(35_000)), (35, None)] {
            let is_drained = tracker.observe(&stream, true, false, after(listed), after(listed));
            assert_eq!(is_drained, next.is_none());
            let next_listing = tracker.next_listing_at(after(listed));
            assert_eq!(next_listing, next.map(|at| started + Duration::from_millis(at)));
        }
        assert!(
            DrainTracker::default().observe(&stream, true, true, started, started),
            "a deleted stream receives no more records"
        );
    }
}
