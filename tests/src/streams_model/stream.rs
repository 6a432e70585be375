//! One stream of the table: enabled at some time, perhaps disabled at another.

use std::collections::BTreeMap;

/// A stream. Times are milliseconds since 1970.
#[derive(Clone, Debug)]
pub struct Stream {
    /// The last part of its ARN.
    pub label: String,
    /// When it was asked for.
    pub asked: u64,
    /// From when it takes records.
    pub enabled: u64,
    /// When it was told to stop, and when that was done.
    pub disabled: Option<(u64, u64)>,
    /// Its shards by their ids, which sort by the time at which they were opened.
    pub(super) shards: BTreeMap<String, usize>,
}

/// What DescribeStream says of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// It is being made.
    Enabling,
    /// It takes records.
    Enabled,
    /// It is being closed.
    Disabling,
    /// It is closed, and kept for a while.
    Disabled,
}

impl Status {
    /// The status as AWS spells it.
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
    /// Its status at a time.
    pub fn status(&self, at: u64) -> Status {
        match self.disabled {
            Some((_, done)) if done <= at => Status::Disabled,
            Some((told, _)) if told <= at => Status::Disabling,
            _ if self.enabled <= at => Status::Enabled,
            _ => Status::Enabling,
        }
    }

    /// Whether it can be described at a time.
    pub(super) fn exists(&self, at: u64, retention: u64) -> bool {
        self.asked <= at && self.disabled.is_none_or(|(_, done)| at < done + retention)
    }
}
