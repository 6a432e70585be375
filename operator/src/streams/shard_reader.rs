//! Reads one shard page by page, from a position to its end.
//!
//! If an iterator expires, the reader requests a new one after the last record that it read. The
//! last page can contain records, and is marked as the last.

use std::sync::Arc;

use crate::model::{Record, ShardId};
use crate::streams::service::error::{StreamError, StreamErrorKind};
use crate::streams::service::streams::{IteratorStart, RecordPage, ShardIterator, Streams};

/// Reader of one shard.
#[derive(Debug)]
pub struct ShardReader {
    streams: Arc<dyn Streams>,
    shard: ShardId,
    /// Start of the next iterator: after the last record, if one was read.
    start: IteratorStart,
    iterator: Option<ShardIterator>,
    had_sequence_number: bool,
}

/// One page of a shard.
#[derive(Debug, PartialEq)]
pub struct ShardPage {
    /// Records, in order.
    pub records: Vec<Record>,
    /// Number of further records that are unusable.
    pub malformed: usize,
    /// Whether the shard has no more records, and will have none.
    pub is_last: bool,
}

impl ShardReader {
    pub fn new(streams: Arc<dyn Streams>, shard: ShardId, start: IteratorStart) -> Self {
        Self { streams, shard, start, iterator: None, had_sequence_number: false }
    }

    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// Whether the last read continued after a sequence number. If it did, the service reports by
    /// itself if the records that follow were trimmed.
    pub fn had_sequence_number(&self) -> bool {
        self.had_sequence_number
    }

    /// Whether the next iterator continues after a sequence number.
    pub fn has_sequence_number(&self) -> bool {
        matches!(self.start, IteratorStart::After(_))
    }

    /// Reads the next page. After an error, a repeated call loses no record.
    pub async fn read_page(&mut self) -> Result<ShardPage, StreamError> {
        let iterator = match self.iterator.clone() {
            Some(iterator) => iterator,
            None => self.streams.get_iterator(&self.shard, &self.start).await?,
        };
        let page = match self.streams.get_records(&iterator).await {
            Err(error) if error.kind == StreamErrorKind::ExpiredIterator => {
                self.read_with_new_iterator().await?
            }
            Err(error) => {
                // The iterator is still valid if the error is retryable, and a new one would cost a
                // request.
                self.iterator = error.kind.is_retryable().then_some(iterator);
                return Err(error);
            }
            Ok(page) => page,
        };
        Ok(self.advance(page))
    }

    /// Continues with the oldest record that is left, after the requested ones were trimmed.
    pub fn restart_at_trim_horizon(&mut self) {
        self.start = IteratorStart::TrimHorizon;
        self.iterator = None;
    }

    async fn read_with_new_iterator(&mut self) -> Result<RecordPage, StreamError> {
        self.iterator = None;
        let shard_start =
            fault!(ExpiredIteratorRenewedAtStart).then_some(IteratorStart::TrimHorizon);
        let start = shard_start.as_ref().unwrap_or(&self.start);
        let iterator = self.streams.get_iterator(&self.shard, start).await?;
        let mut page = self.streams.get_records(&iterator).await?;
        while fault!(ExpiredIteratorRenewedAtLatest)
            && !self.has_sequence_number()
            && !page.records.is_empty()
        {
            page.records.clear();
            if let Some(next) = &page.next_iterator {
                page = self.streams.get_records(next).await?;
            }
        }
        Ok(page)
    }

    /// Moves the position behind a page.
    fn advance(&mut self, mut page: RecordPage) -> ShardPage {
        if fault!(SequenceNumbersComparedAsText)
            && let IteratorStart::After(last) = &self.start
        {
            page.records.retain(|record| record.sequence_number.as_str() > last.as_str());
        }
        self.had_sequence_number = self.has_sequence_number();
        if let Some(last) = page.records.last() {
            self.start = IteratorStart::After(last.sequence_number.clone());
        }
        let is_last = page.next_iterator.is_none();
        self.iterator = page.next_iterator;
        if is_last && fault!(LastPageDropped) {
            page.records.clear();
        }
        ShardPage { records: page.records, malformed: page.malformed, is_last }
    }
}
