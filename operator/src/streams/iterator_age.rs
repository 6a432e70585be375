//! Tells how far reading is behind, as long as it goes on: time that nobody reads a shard counts too.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::checkpoint::Positions;
use crate::telemetry::NotifierTelemetry;
use crate::timing::ServiceClock;

const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Tells for ever; when this is dropped, nothing is read, and neither this nor the pace is told.
pub async fn report_iterator_age(
    positions: &Positions,
    clock: &ServiceClock,
    telemetry: &NotifierTelemetry,
) -> Infallible {
    let _ending = ClearOnDrop(telemetry);
    loop {
        let now = clock.now();
        let read_through = positions.read_through().unwrap_or(now);
        telemetry.iterator_age(now.0.saturating_sub(read_through.0));
        sleep(REPORT_INTERVAL).await;
    }
}

struct ClearOnDrop<'a>(&'a NotifierTelemetry);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.no_iterator_age();
        self.0.no_get_records_per_month();
    }
}
