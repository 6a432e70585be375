//! A stream of the table.

use std::collections::BTreeMap;

/// A stream. Times are in milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The last part of the ARN.
    pub label: String,
    /// When it was requested.
    pub requested: u64,
    /// The time from which it receives records.
    pub enabled: u64,
    /// When it began to be `DISABLING`, and when it is `DISABLED`.
    pub disabled: Option<(u64, u64)>,
    /// Shards by id. Ids sort by the time at which the shards were opened.
    pub(super) shards: BTreeMap<String, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Enabling,
    Enabled,
    Disabling,
    Disabled,
}

impl Status {
    /// The name that AWS uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabling => "ENABLING",
            Self::Enabled => "ENABLED",
            Self::Disabling => "DISABLING",
            Self::Disabled => "DISABLED",
        }
    }
}

impl Stream {
    pub fn status(&self, at: u64) -> Status {
        match self.disabled {
            Some((_, done)) if done <= at => Status::Disabled,
            Some((disabling, _)) if disabling <= at => Status::Disabling,
            _ if self.enabled <= at => Status::Enabled,
            _ => Status::Enabling,
        }
    }

    /// Whether DescribeStream finds it at a time.
    pub(super) fn exists(&self, at: u64, retention: u64) -> bool {
        self.requested <= at && self.disabled.is_none_or(|(_, done)| at < done + retention)
    }
}
