//! How far this machine's clock is from a service's, learned from every answer, as the SDK's clients do:
//! AWS refuses what is signed for another time than its own, by five minutes.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::http::Headers;
use aws_smithy_types::DateTime;
use aws_smithy_types::date_time::Format;

/// What an answer says that time it is.
pub fn date(headers: &Headers) -> Option<DateTime> {
    headers.get("date").and_then(|date| DateTime::from_str(date, Format::HttpDate).ok())
}

/// By how much the service's clock is ahead.
#[derive(Debug)]
pub struct ClockSkew {
    /// In milliseconds; negative if it is behind.
    offset_ms: AtomicI64,
    /// Off where the environment says so (`AWS_DISABLE_CLOCK_SKEW_CORRECTION`).
    is_on: bool,
}

impl ClockSkew {
    /// None is known yet.
    pub fn new(is_on: bool) -> Self {
        Self { offset_ms: AtomicI64::new(0), is_on }
    }

    /// What the service's clock shows now.
    pub fn apply(&self, now: SystemTime) -> SystemTime {
        let ahead = self.offset_ms.load(Ordering::Relaxed);
        let by = Duration::from_millis(ahead.unsigned_abs());
        let then = if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) };
        then.unwrap_or(now)
    }

    /// Learns from an answer, good or bad, that came between the two.
    pub fn learn(&self, answer: &HttpResponse, sent: SystemTime, received: SystemTime) {
        let headers = answer.headers();
        // An answer out of a cache shows an old date.
        if !self.is_on || headers.get("age").is_some() {
            return;
        }
        let Some(date) = date(headers).and_then(|date| date.to_millis().ok()) else { return };
        let [sent, received] = [sent, received].map(|it| DateTime::from(it).to_millis());
        if let (Ok(sent), Ok(received)) = (sent, received) {
            // Made halfway, as far as can be told.
            let ahead = date.saturating_sub(sent.midpoint(received));
            self.offset_ms.store(ahead, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use aws_smithy_types::body::SdkBody;

    use super::*;

    fn answer(headers: &[(&'static str, &'static str)]) -> HttpResponse {
        let status = 403.try_into().unwrap();
        let mut answer = HttpResponse::new(status, SdkBody::empty());
        for (name, value) in headers {
            answer.headers_mut().insert(*name, *value);
        }
        answer
    }

    #[test]
    fn a_clock_that_is_off_is_corrected_in_both_directions() {
        let skew = ClockSkew::new(true);
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_348_800);
        assert_eq!(skew.apply(noon), noon);
        let hour = Duration::from_secs(3_600);
        for now in [noon - hour, noon + hour] {
            let second = Duration::from_secs(1);
            skew.learn(
                &answer(&[("date", "Sun, 22 Nov 2026 12:00:00 GMT")]),
                now - second,
                now + second,
            );
            assert_eq!(skew.apply(now), noon);
        }
    }

    #[test]
    fn what_says_nothing_changes_nothing() {
        let (noon, off) = (SystemTime::UNIX_EPOCH, ClockSkew::new(false));
        off.learn(&answer(&[("date", "Sun, 22 Nov 2026 12:00:00 GMT")]), noon, noon);
        assert_eq!(off.apply(noon), noon);
        let skew = ClockSkew::new(true);
        skew.learn(&answer(&[]), noon, noon);
        skew.learn(&answer(&[("date", "yesterday")]), noon, noon);
        let cached = [("date", "Sun, 22 Nov 2026 12:00:00 GMT"), ("age", "7")];
        skew.learn(&answer(&cached), noon, noon);
        assert_eq!(skew.apply(noon), noon);
    }
}
