//! Corrects the time of signatures by the service's clock, as the SDK's clients do.
//!
//! AWS rejects a signature whose time differs from the service's clock by more than 5 minutes.
//! Every response shows the service's clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_async::time::{SharedTimeSource, TimeSource};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// The `Date` header, which is the service's clock.
pub fn date_header(headers: &Headers) -> Option<DateTime> {
    headers.get("date").and_then(|date| DateTime::from_str(date, Format::HttpDate).ok())
}

/// The offset between the service's clock and this machine's.
#[derive(Debug)]
pub struct ClockSkew {
    /// How far the service's clock is ahead, in milliseconds. Negative if it is behind.
    offset_ms: AtomicI64,
    /// Whether times are corrected. `AWS_DISABLE_CLOCK_SKEW_CORRECTION` turns this off.
    is_enabled: bool,
}

impl ClockSkew {
    /// No offset, until the first response.
    pub fn new(is_enabled: bool) -> Self {
        Self { offset_ms: AtomicI64::new(0), is_enabled }
    }

    /// The service's clock when this machine's clock is at `now`.
    pub fn apply(&self, now: SystemTime) -> SystemTime {
        let offset_ms = self.offset_ms.load(Ordering::Relaxed);
        let offset = Duration::from_millis(offset_ms.unsigned_abs());
        let corrected =
            if offset_ms < 0 { now.checked_sub(offset) } else { now.checked_add(offset) };
        corrected.unwrap_or(now)
    }

    /// Updates the offset from a response of any status, which was received between the two times.
    pub fn update(&self, response: &HttpResponse, sent: SystemTime, received: SystemTime) {
        let headers = response.headers();
        // A cached response has an old date.
        if !self.is_enabled || headers.get("age").is_some() {
            return;
        }
        let Some(date) = date_header(headers).and_then(|date| date.to_millis().ok()) else {
            return;
        };
        let [sent, received] = [sent, received].map(|it| DateTime::from(it).to_millis());
        if let (Ok(sent), Ok(received)) = (sent, received) {
            // The service set the date at an unknown time in between.
            let offset_ms = date.saturating_sub(sent.midpoint(received));
            self.offset_ms.store(offset_ms, Ordering::Relaxed);
        }
    }
}

/// The service's clock, for a client that does not measure the skew itself.
#[derive(Debug)]
pub struct CorrectedClock {
    pub skew: Arc<ClockSkew>,
    /// This machine's clock.
    pub local: SharedTimeSource,
}

impl TimeSource for CorrectedClock {
    fn now(&self) -> SystemTime {
        self.skew.apply(self.local.now())
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn response(headers: &[(&'static str, &'static str)]) -> HttpResponse {
        let status = 403.try_into().unwrap();
        let mut response = HttpResponse::new(status, SdkBody::empty());
        for (name, value) in headers {
            response.headers_mut().insert(*name, *value);
        }
        response
    }

    #[test]
    fn corrects_a_clock_in_both_directions() {
        let skew = ClockSkew::new(true);
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800);
        assert_eq!(skew.apply(noon), noon);
        let hour = Duration::from_secs(3_600);
        for now in [noon - hour, noon + hour] {
            let second = Duration::from_secs(1);
            skew.update(
                &response(&[("date", "Sun, 22 Nov 2026 12:00:00 GMT")]),
                now - second,
                now + second,
            );
            assert_eq!(skew.apply(now), noon);
        }
    }

    #[test]
    fn ignores_responses_without_a_usable_date() {
        let (epoch, disabled) = (SystemTime::UNIX_EPOCH, ClockSkew::new(false));
        disabled.update(&response(&[("date", "Sun, 22 Nov 2026 12:00:00 GMT")]), epoch, epoch);
        assert_eq!(disabled.apply(epoch), epoch);
        let skew = ClockSkew::new(true);
        skew.update(&response(&[]), epoch, epoch);
        skew.update(&response(&[("date", "yesterday")]), epoch, epoch);
        let cached = [("date", "Sun, 22 Nov 2026 12:00:00 GMT"), ("age", "7")];
        skew.update(&response(&cached), epoch, epoch);
        assert_eq!(skew.apply(epoch), epoch);
    }
}
