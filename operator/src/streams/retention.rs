//! Retention of stream records: which records can be trimmed, and how long a data gap is.

use crate::checkpoint::{StartKind, StartPoint};
use crate::model::{ShardId, UnixSeconds};

/// How long a stream keeps a record, in seconds.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html>
const RETENTION_SECONDS: i64 = 24 * 3600;

/// Seconds above the trim horizon in which records count as lost, because DynamoDB trims them while
/// reading starts.
pub const SAFETY_MARGIN_SECONDS: u64 = 60;

/// Seconds above the trim horizon that a notifier with the position `TrimHorizon` does not request,
/// because DynamoDB trims them while reading starts.
const TRIM_HORIZON_MARGIN_SECONDS: i64 = 3600;

/// The oldest time whose records are certain to be kept.
pub fn trim_horizon(now: UnixSeconds) -> UnixSeconds {
    UnixSeconds(now.0.saturating_sub(RETENTION_SECONDS))
}

/// The trim horizon plus a margin. Older records are lost, or will be before they are read.
pub fn safe_horizon(now: UnixSeconds) -> UnixSeconds {
    UnixSeconds(trim_horizon(now).0.saturating_add(SAFETY_MARGIN_SECONDS as i64))
}

/// Seconds of records that can have been trimmed, given that nothing was read after `since`.
/// Returns `None` if all records since then are kept.
pub fn gap_seconds(since: UnixSeconds, now: UnixSeconds) -> Option<u64> {
    let lost = trim_horizon(now).0.saturating_sub(since.0);
    u64::try_from(lost).ok().filter(|lost| *lost > 0)
}

/// Whether a shard can be trimmed. It cannot if its name contains a creation time within the
/// retention.
pub fn may_be_trimmed(id: &ShardId, now: UnixSeconds) -> bool {
    id.created_at().is_none_or(|created_at| created_at < trim_horizon(now))
}

/// The time since which the notifier requests records. The loss of an older record is no data gap.
pub fn requested_since(start: &StartPoint) -> UnixSeconds {
    let at = start.at.as_second();
    UnixSeconds(match start.kind {
        StartKind::Latest | StartKind::AtTimestamp => at,
        StartKind::TrimHorizon => {
            at.saturating_sub(RETENTION_SECONDS - TRIM_HORIZON_MARGIN_SECONDS)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_a_gap_after_exactly_one_day() {
        let lost = |since, now| gap_seconds(UnixSeconds(since), UnixSeconds(now));
        assert_eq!(lost(1000, 1000 + 86_400), None);
        assert_eq!(lost(1000, 1001 + 86_400), Some(1));
        assert_eq!(lost(1000, 0), None);
    }
}
