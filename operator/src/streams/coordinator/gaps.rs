//! Detects data gaps that no shard's reader can detect, because no reader existed. Each gap is
//! reported once.

use crate::model::{Position, ShardId, ShardPositions, StreamLabel, UnixSeconds};
use crate::streams::coordinator::ShardCoordinator;
use crate::streams::listing::Listing;
use crate::streams::retention::{SAFETY_MARGIN_SECONDS, gap_seconds, safe_horizon};

impl ShardCoordinator {
    /// Reports that nothing was read or listed for longer than the retention, if no unfinished
    /// shard is left to show the loss. A shard can have been created and trimmed in that time.
    /// Returns whether the consumer continues.
    pub(crate) fn check_downtime_gap(&mut self, listing: &Listing) -> bool {
        let context = &self.context;
        let (read_at, now) = (self.positions.read_at(), context.clock.now());
        let has_unfinished = self.positions.all().values().any(|it| *it != Position::Finished);
        let (Some((newest, _)), Some(lost), false) =
            (listing.newest(), gap_seconds(read_at, now), has_unfinished)
        else {
            return true;
        };
        // Older records are reported as lost below. All later ones are still read.
        self.requested_since = safe_horizon(now);
        for (label, _) in listing.streams.iter().filter(|(_, stream)| stream.is_deleted()) {
            self.graph.take_unread(label, &self.positions.of_stream(label));
        }
        let lost = lost + SAFETY_MARGIN_SECONDS;
        let continues =
            context.report_gap(newest, None, "nothing was read for more than 24 hours", lost);
        if !continues {
            // The checkpoint must stay before the gap.
            self.positions.set_waits_since(Some(read_at));
        }
        continues
    }

    /// Reports a deleted stream that had shards which were never begun. Returns whether the
    /// consumer continues.
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
        let cause = "stream was deleted before its shards were read";
        let continues = self.context.report_gap(stream, None, cause, lost);
        if !continues {
            self.positions.set_waits_since(Some(since));
        }
        continues
    }

    /// Reports a trimmed parent that no listing ever showed, if it can have had requested records.
    /// Returns whether the consumer continues.
    pub(crate) fn check_unlisted_parent(&mut self, id: &ShardId) -> bool {
        let since = id.created_at().unwrap_or(self.requested_since).max(self.requested_since);
        let Some(lost) = gap_seconds(since, self.context.clock.now()) else {
            return true;
        };
        let cause = "shard was trimmed before it was listed";
        let continues = self.context.report_gap(&id.stream, Some(id), cause, lost);
        if !continues {
            self.positions.set_waits_since(Some(since));
        }
        continues
    }

    /// Skips a stream whose records lack an image that the spec needs, and reports that its records
    /// are not delivered. Returns whether the consumer continues.
    pub(crate) fn skip_stream(&mut self, stream: &StreamLabel) -> bool {
        if !self.skipped_streams.insert(stream.clone()) {
            return true;
        }
        self.context.report_gap(stream, None, "records lack an image that the spec needs", 0)
    }

    /// The time since which a shard that was never read can have had requested records: its
    /// creation time if its name contains it, otherwise its first listing.
    pub(crate) fn unread_since(&self, id: &ShardId) -> UnixSeconds {
        let now = self.context.clock.now();
        match id.created_at() {
            Some(created_at) => created_at.max(self.requested_since).min(now),
            None => self.graph.listed_at(id).map_or(now, |at| at.max(self.requested_since)),
        }
    }
}
