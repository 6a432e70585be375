//! What the stream's retention has taken before it was read: nothing of that is silent.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::checkpoint::{Start, StartedAt};
use crate::record::UnixSeconds;

/// How long a stream keeps a record, in seconds.
///
/// <https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/Streams.html>
const RETENTION_SECONDS: i64 = 24 * 3600;

/// What to do when records were lost before they were read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnGap {
    /// Go on from the oldest record left.
    #[default]
    Continue,
    /// Read nothing more, and leave the checkpoint before the gap.
    Stop,
}

/// For how many seconds records may be gone from what was last read `since`; `None` if all are there.
pub fn lost_seconds(since: UnixSeconds, now: UnixSeconds) -> Option<u64> {
    let lost = now.0.saturating_sub(RETENTION_SECONDS).saturating_sub(since.0);
    u64::try_from(lost).ok().filter(|lost| *lost > 0)
}

/// At `TrimHorizon` the oldest hour is not asked for: it is trimmed while reading begins.
const GRACE_SECONDS: i64 = 3600;

/// From when on records count: what is older was not asked for.
pub fn asked_since(start: &Start) -> UnixSeconds {
    let at = start.at.as_second();
    UnixSeconds(match start.position {
        StartedAt::Latest | StartedAt::AtTimestamp => at,
        StartedAt::TrimHorizon => at.saturating_sub(RETENTION_SECONDS - GRACE_SECONDS),
    })
}

/// The same moment as the checkpoint has it.
pub fn timestamp(UnixSeconds(seconds): UnixSeconds) -> Timestamp {
    Timestamp::from_second(seconds).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// The service's clock, as its last answer told it and ours has gone on since.
#[derive(Debug)]
pub struct ServiceClock(Mutex<(UnixSeconds, Instant)>);

impl ServiceClock {
    /// The clock of a service that said `now` at this moment of ours.
    pub fn new(now: UnixSeconds, at: Instant) -> Self {
        Self(Mutex::new((now, at)))
    }

    /// The service said `now` at this moment of ours.
    pub fn set(&self, now: UnixSeconds, at: Instant) {
        *self.lock() = (now, at);
    }

    /// What the service would say now.
    pub fn now(&self) -> UnixSeconds {
        self.at(Instant::now())
    }

    /// What the service would have said at a moment of ours, or a second less.
    pub fn at(&self, moment: Instant) -> UnixSeconds {
        let (UnixSeconds(then), at) = *self.lock();
        let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        UnixSeconds(match moment.checked_duration_since(at) {
            Some(after) => then.saturating_add(seconds(after)),
            None => then.saturating_sub(seconds(at - moment)).saturating_sub(1),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (UnixSeconds, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_kept_and_not_a_second_more() {
        let lost = |since, now| lost_seconds(UnixSeconds(since), UnixSeconds(now));
        assert_eq!(lost(1000, 1000 + 86_400), None);
        assert_eq!(lost(1000, 1001 + 86_400), Some(1));
        assert_eq!(lost(1000, 0), None);
    }
}
