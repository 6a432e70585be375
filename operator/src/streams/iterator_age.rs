//! Reports the iterator age: how far the consumer is behind the newest records. The age grows while
//! a shard is not read.

use std::convert::Infallible;
use std::time::Duration;

use tokio::time::sleep;

use crate::checkpoint::Positions;
use crate::telemetry::NotifierTelemetry;
use crate::timing::ServiceClock;

const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// Updates the iterator age every 10 s until the future is dropped. Dropping it means that the
/// notifier is no longer read, so it removes this metric and the request rate.
pub async fn report_iterator_age(
    positions: &Positions,
    clock: &ServiceClock,
    telemetry: &NotifierTelemetry,
) -> Infallible {
    let _clear = ClearOnDrop(telemetry);
    loop {
        let now = clock.now();
        let read_through = positions.read_through().unwrap_or(now);
        telemetry.set_iterator_age(now.0.saturating_sub(read_through.0));
        sleep(REPORT_INTERVAL).await;
    }
}

struct ClearOnDrop<'a>(&'a NotifierTelemetry);

impl Drop for ClearOnDrop<'_> {
    fn drop(&mut self) {
        self.0.clear_iterator_age();
        self.0.clear_get_records_per_month();
    }
}
