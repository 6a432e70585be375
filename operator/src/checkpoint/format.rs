//! Format 1 of the checkpoint: a ConfigMap's `data` that a person can read, and edit while the
//! notifier is suspended. What does not parse is reported by its key, never guessed.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::record::{SequenceNumber, UnixSeconds};
use crate::stream::ShardId;

const FORMAT: &str = "1";

/// Everything that is remembered of one notifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Who writes it.
    pub holder: String,
    /// Grows with every claim.
    pub epoch: u64,
    /// Where and when reading began.
    pub start: Start,
    /// Each shard that is, or was, read.
    pub shards: BTreeMap<ShardId, Position>,
}

/// Where and when reading began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Start {
    /// The stream that is read.
    pub stream: String,
    /// From where.
    pub position: StartedAt,
    /// When, by the service's clock. With `Latest`, what is older is skipped in every shard.
    pub at: Timestamp,
}

impl Start {
    /// Records older than this are skipped.
    pub fn not_before(&self) -> Option<UnixSeconds> {
        match self.position {
            StartedAt::Latest => Some(UnixSeconds(self.at.as_second())),
            StartedAt::TrimHorizon => None,
        }
    }

    /// The stream's label: the last part of its ARN.
    fn label(&self) -> &str {
        self.stream.rsplit('/').next().unwrap_or_default()
    }
}

/// From where reading began.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StartedAt {
    /// From that moment on.
    Latest,
    /// From the oldest record kept.
    TrimHorizon,
}

/// How far a shard is settled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Position {
    /// Nothing yet; it is read from its oldest record.
    Start,
    /// Nothing yet; it is read from the moment reading began.
    Latest,
    /// Everything up to and with this record.
    After(SequenceNumber),
    /// Everything there is.
    Finished,
}

/// What is wrong with a stored checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// It was written by another version, or is no checkpoint.
    #[error("format is {0:?}, and only \"1\" is known: use the version that wrote it, or delete the checkpoint to start afresh")]
    Unknown(String),
    /// A key is missing or its value does not parse.
    #[error("the key {key:?} {problem}: mend it, or delete the checkpoint to start afresh")]
    Key {
        /// The key in `data`.
        key: String,
        /// What is wrong with it.
        problem: &'static str,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    stream: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    after: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    at: Option<Mark>,
}

#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mark {
    Start,
    Latest,
    Finished,
}
