//! What was lost before any shard's reader could tell: it is told once, as long as it may have been.

use crate::model::{Position, ShardId, ShardPositions, StreamLabel, UnixSeconds};
use crate::streams::coordinator::ShardCoordinator;
use crate::streams::listing::Listing;
use crate::streams::retention::{SAFETY_MARGIN_SECONDS, gap_seconds, safe_horizon};

impl ShardCoordinator {
    /// Tells that nobody has read for longer than records are kept, where no shard is left that would
    /// tell it: one may have come and gone. `false` if that stops everything.
    pub(crate) fn check_downtime_gap(&mut self, listing: &Listing) -> bool {
        let shared = &self.context;
        let (read_at, now) = (self.positions.read_at(), shared.clock.now());
        let is_left = self.positions.all().values().any(|it| *it != Position::Finished);
        let (Some((newest, _)), Some(lost), false) =
            (listing.newest(), gap_seconds(read_at, now), is_left)
        else {
            return true;
        };
        // What is older than this is told to be lost; all else is still to be read.
        self.requested_since = safe_horizon(now);
        for (label, _) in listing.streams.iter().filter(|(_, stream)| stream.is_trimmed()) {
            self.graph.take_unread(label, &self.positions.of_stream(label));
        }
        let lost = lost + SAFETY_MARGIN_SECONDS;
        let goes_on =
            shared.report_gap(newest, None, "nothing was read for more than 24 hours", lost);
        if !goes_on {
            // The checkpoint stays before the gap.
            self.positions.set_waits_since(Some(read_at));
        }
        goes_on
    }

    /// Tells of a stream that is gone and had shards that were never begun; `false` if that stops
    /// everything.
    pub(crate) fn check_vanished_stream(
        &mut self,
        stream: &StreamLabel,
        entries: &ShardPositions,
    ) -> bool {
        let unread = self.graph.take_unread(stream, entries);
        let Some(since) = unread.iter().map(|id| self.unread_since(id)).min() else {
            return true;
        };
        let lost = gap_seconds(since, self.context.clock.now()).unwrap_or(1);
        let goes_on = self.context.report_gap(stream, None, "it was gone before it was read", lost);
        if !goes_on {
            self.positions.set_waits_since(Some(since));
        }
        goes_on
    }

    /// Tells of a parent that is gone and that no listing ever showed, if it may have had records that
    /// count; `false` if that stops everything.
    pub(crate) fn check_unlisted_parent(&mut self, id: &ShardId) -> bool {
        let since = id.created_at().unwrap_or(self.requested_since).max(self.requested_since);
        let Some(lost) = gap_seconds(since, self.context.clock.now()) else {
            return true;
        };
        let why = "it was gone before it was listed";
        let goes_on = self.context.report_gap(&id.stream, Some(id), why, lost);
        if !goes_on {
            self.positions.set_waits_since(Some(since));
        }
        goes_on
    }

    /// Leaves out a stream whose records lack an image that the spec needs: nobody is told of its
    /// changes. `false` if that stops everything.
    pub(crate) fn skip_stream(&mut self, stream: &StreamLabel) -> bool {
        if !self.skipped_streams.insert(stream.clone()) {
            return true;
        }
        self.context.report_gap(stream, None, "its records lack an image that the spec needs", 0)
    }

    /// Since when a shard that was never read may have had records that count: since it was made, if
    /// that is known, else since it was listed first.
    pub(crate) fn unread_since(&self, id: &ShardId) -> UnixSeconds {
        let now = self.context.clock.now();
        match id.created_at() {
            Some(made_at) => made_at.max(self.requested_since).min(now),
            None => self.graph.listed_at(id).map_or(now, |at| at.max(self.requested_since)),
        }
    }
}
