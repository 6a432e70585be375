//! What the stream's retention has taken before it was read: nothing of that is silent.

use crate::checkpoint::{StartKind, StartPoint};
use crate::model::{ShardId, UnixSeconds};

/// How long a stream keeps a record, in seconds.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html>
const RETENTION_SECONDS: i64 = 24 * 3600;

/// Since when all records are kept.
pub fn trim_horizon(now: UnixSeconds) -> UnixSeconds {
    UnixSeconds(now.0.saturating_sub(RETENTION_SECONDS))
}

/// For how many seconds records may be gone from what was last read `since`; `None` if all are there.
pub fn gap_seconds(since: UnixSeconds, now: UnixSeconds) -> Option<u64> {
    let lost = trim_horizon(now).0.saturating_sub(since.0);
    u64::try_from(lost).ok().filter(|lost| *lost > 0)
}

/// Whether a shard may be gone: one whose name tells that it is younger than its records may become is
/// not.
pub fn may_be_trimmed(id: &ShardId, now: UnixSeconds) -> bool {
    id.created_at().is_none_or(|made_at| made_at < trim_horizon(now))
}

/// What is about to be trimmed counts as lost: it goes while reading begins.
pub const SAFETY_MARGIN_SECONDS: u64 = 60;

/// What is older than this is lost, or will be before it is read.
pub fn safe_horizon(now: UnixSeconds) -> UnixSeconds {
    UnixSeconds(trim_horizon(now).0.saturating_add(SAFETY_MARGIN_SECONDS as i64))
}

/// At `TrimHorizon` the oldest hour is not asked for: it is trimmed while reading begins.
const TRIM_HORIZON_MARGIN_SECONDS: i64 = 3600;

/// From when on records count: what is older was not asked for.
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
    fn a_day_is_kept_and_not_a_second_more() {
        let lost = |since, now| gap_seconds(UnixSeconds(since), UnixSeconds(now));
        assert_eq!(lost(1000, 1000 + 86_400), None);
        assert_eq!(lost(1000, 1001 + 86_400), Some(1));
        assert_eq!(lost(1000, 0), None);
    }
}
