//! Time in whole seconds, the resolution of stream records and of the service's clock.

use std::fmt;

use jiff::Timestamp;

/// Time of the service's clock, in whole seconds since 1970. Stream records have no finer
/// resolution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub i64);

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(time) => write!(f, "{time}"),
            // Outside the years -9999 to 9999.
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl From<UnixSeconds> for Timestamp {
    /// Returns the epoch if the time is outside the range of a `Timestamp` (years -9999 to 9999).
    fn from(UnixSeconds(seconds): UnixSeconds) -> Self {
        Self::from_second(seconds).unwrap_or(Self::UNIX_EPOCH)
    }
}
