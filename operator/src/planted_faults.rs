//! Planted faults: named bugs, each of which breaks a guarantee of the operator.
//!
//! The simulation must detect every one of them, which `make faults` verifies. The sources contain
//! them as `if fault!(Name)`. Without the cargo feature `planted-faults` the macro is the constant
//! `false`, and this module is otherwise empty. With the feature, the environment variable
//! `PLANTED_FAULT` selects one fault by its name in kebab-case.

#[cfg(feature = "planted-faults")]
use std::env;
#[cfg(feature = "planted-faults")]
use std::sync::OnceLock;

#[cfg(feature = "planted-faults")]
use clap::ValueEnum;

/// Whether this planted fault is selected.
#[cfg(feature = "planted-faults")]
macro_rules! fault {
    ($fault:ident) => {
        $crate::planted_faults::Fault::$fault.is_selected()
    };
}

/// Whether this planted fault is selected: never, in a build without the feature `planted-faults`.
#[cfg(not(feature = "planted-faults"))]
macro_rules! fault {
    ($fault:ident) => {
        false
    };
}

/// A planted fault.
#[cfg(feature = "planted-faults")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// A shard without a checkpointed record is read from the current time on.
    ChildStartsAtLatest,
    /// The records of a page without a next iterator are discarded.
    LastPageDropped,
    /// The checkpoint advances when a record is read, not when it is settled.
    CheckpointAdvancesOnRead,
    /// Sequence numbers are compared as text, and records that seem to be old are discarded.
    SequenceNumbersComparedAsText,
    /// A task that waits until all records of a shard are settled is never notified.
    DrainNotificationMissing,
    /// The children of a finished shard are found only by the periodic listing.
    ChildrenNotRequested,
    /// An iterator that expired before its first record is renewed at LATEST.
    ExpiredIteratorRenewedAtLatest,
    /// A shard whose parent was trimmed is never read.
    TrimmedParentBlocksChildren,
    /// A parent that is missing from a listing is treated as trimmed.
    UnlistedParentAssumedTrimmed,
    /// After a write conflict, the holder of the checkpoint is not verified.
    CheckpointHolderNotVerified,
    /// A shard is finished when its last page is read, before its records are settled.
    ShardFinishedBeforeDelivery,
    /// An iterator that expired is renewed at the start of the shard.
    ExpiredIteratorRenewedAtStart,
    /// Trimmed records are skipped without a report of the data gap.
    DataGapNotReported,
    /// Reading continues after a data gap although `onGap` is `Stop`.
    DataGapStopIgnored,
    /// Updates and removals from before the start position are delivered.
    RecordsBeforeStartDelivered,
    /// Messages of later records are queued before those of earlier ones.
    MessagesQueuedOutOfOrder,
    /// A message is dropped when its first post fails.
    MessageDroppedOnFirstFailure,
    /// A dropped message is not counted.
    DroppedMessageNotCounted,
    /// A record releases its share of the memory before it is settled.
    MemoryReleasedEarly,
    /// A lookup returns only the first page of rows that is not empty.
    LookupReadsFirstPageOnly,
    /// A connection is treated as closed, and its row deleted, after a single 410 response.
    RowDeletedOnFirstGone,
    /// A checkpoint that exists is treated as claimed without a write.
    ClaimNotWritten,
    /// The table's next stream is read before the previous one is drained.
    NextStreamStartsEarly,
    /// A worker that stops does not write its final checkpoint.
    FinalCheckpointNotWritten,
    /// A worker that lost its claim continues.
    LostClaimIgnored,
    /// A listing consists of its first page of shards only.
    ListingReadsFirstPageOnly,
    /// A record uses the result of a lookup that started before the record was read.
    StaleLookupReused,
    /// A record is settled before its dead letter is sent.
    RecordSettledBeforeDeadLetter,
    /// An overflowing queue drops the message that is being posted.
    OverflowDropsMessageInFlight,
    /// A message that a newer one superseded is not counted as dropped.
    SupersededMessageNotCounted,
    /// Posts that fail while the account is throttled count as attempts of the message.
    AccountThrottlingCountsAsAttempt,
    /// A slow client is disconnected regardless of the policy.
    SlowClientAlwaysDisconnected,
    /// The row of a slow client is deleted although the disconnect failed.
    RowDeletedAfterFailedDisconnect,
    /// A dead letter is dropped when its first send fails.
    DeadLetterDroppedOnFirstFailure,
    /// A message gets one attempt less than the configured maximum.
    LastAttemptSkipped,
    /// Messages overflow although their connection accepts posts.
    ResponsiveConnectionOverflows,
    /// A dead letter counts a single dropped message for each reason.
    DeadLetterCountsOneDropPerReason,
    /// Account throttling ends after two seconds, even if no connection accepts posts.
    AccountThrottlingEndsEarly,
    /// Messages overflow while all posts are held.
    OverflowWhilePostsHeld,
}

#[cfg(feature = "planted-faults")]
impl Fault {
    /// Every planted fault.
    pub fn all() -> &'static [Self] {
        Self::value_variants()
    }

    /// Its name in kebab-case.
    pub fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Its effect, in one line.
    pub fn description(self) -> String {
        let value = self.to_possible_value();
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// The fault with this name.
    pub fn parse(name: &str) -> Result<Self, String> {
        Self::from_str(name, false).map_err(|_| {
            let names: Vec<_> = Self::all().iter().map(|fault| fault.name()).collect();
            format!("unknown planted fault {name:?}; the planted faults are: {}", names.join(", "))
        })
    }

    /// The fault that `PLANTED_FAULT` selects, read once; panics if there is no such fault.
    #[expect(clippy::panic, reason = "a misspelled name must not pass for a fault that survived")]
    pub fn selected() -> Option<Self> {
        static SELECTED: OnceLock<Option<Fault>> = OnceLock::new();
        *SELECTED.get_or_init(|| {
            let name = env::var_os("PLANTED_FAULT").filter(|name| !name.is_empty())?;
            match Self::parse(&name.to_string_lossy()) {
                Ok(fault) => Some(fault),
                Err(unknown) => panic!("PLANTED_FAULT: {unknown}"),
            }
        })
    }

    /// Whether this fault is selected.
    pub(crate) fn is_selected(self) -> bool {
        Self::selected() == Some(self)
    }
}
