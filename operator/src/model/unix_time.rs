//! Time in whole seconds, as stream records and the service's clock carry it.

use std::fmt;

use jiff::Timestamp;

/// A moment by the service's clock, in whole seconds since 1970: stream records carry no finer one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixSeconds(pub i64);

impl fmt::Display for UnixSeconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match Timestamp::from_second(self.0) {
            Ok(moment) => write!(f, "{moment}"),
            // None that a calendar has.
            Err(_) => write!(f, "{}", self.0),
        }
    }
}

impl From<UnixSeconds> for Timestamp {
    /// The epoch, if the moment is outside the range of a `Timestamp` (years -9999 to 9999).
    fn from(UnixSeconds(seconds): UnixSeconds) -> Self {
        Self::from_second(seconds).unwrap_or(Self::UNIX_EPOCH)
    }
}
