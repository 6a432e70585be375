//! Reads one shard from a position to its end: an expired iterator is asked for again where reading
//! stood, and the last page's records are handed out with the news that it was the last.

use std::sync::Arc;

use crate::model::{Record, ShardId};
use crate::streams::service::error::{StreamError, StreamErrorKind};
use crate::streams::service::streams::{IteratorStart, RecordPage, ShardIterator, Streams};

/// One shard's reader.
#[derive(Debug)]
pub struct ShardReader {
    streams: Arc<dyn Streams>,
    shard: ShardId,
    /// Where a new iterator begins: after the last record read, if there was one.
    start: IteratorStart,
    iterator: Option<ShardIterator>,
    had_number: bool,
}

/// What one read gave.
#[derive(Debug, PartialEq)]
pub struct ShardPage {
    /// Records, in order.
    pub records: Vec<Record>,
    /// How many more there were that no use can be made of.
    pub malformed: usize,
    /// Whether the shard has no more, now and ever.
    pub is_last: bool,
}

impl ShardReader {
    /// A reader of `shard` that begins at `from`.
    pub fn new(streams: Arc<dyn Streams>, shard: ShardId, start: IteratorStart) -> Self {
        Self { streams, shard, start, iterator: None, had_number: false }
    }

    /// The shard.
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// Whether, before the last read, there was a record to go on after: then a service tells by
    /// itself if what came next is gone.
    pub fn had_sequence_number(&self) -> bool {
        self.had_number
    }

    /// Whether there is a record to go on after.
    pub fn has_sequence_number(&self) -> bool {
        matches!(self.start, IteratorStart::After(_))
    }

    /// Reads the next page. After an error it may be called again and loses nothing.
    pub async fn read_page(&mut self) -> Result<ShardPage, StreamError> {
        let iterator = match self.iterator.clone() {
            Some(iterator) => iterator,
            None => self.streams.get_iterator(&self.shard, &self.start).await?,
        };
        let page = match self.streams.get_records(&iterator).await {
            Err(error) if error.kind == StreamErrorKind::ExpiredIterator => {
                self.renewed_page().await?
            }
            Err(error) => {
                // It is still good where it was not what failed, and a new one would cost a call.
                self.iterator = error.kind.is_retryable().then_some(iterator);
                return Err(error);
            }
            Ok(page) => page,
        };
        Ok(self.advance(page))
    }

    /// Goes on from the oldest record there is, after the ones asked for were trimmed.
    pub fn restart_at_trim_horizon(&mut self) {
        self.start = IteratorStart::Start;
        self.iterator = None;
    }

    async fn renewed_page(&mut self) -> Result<RecordPage, StreamError> {
        self.iterator = None;
        let start = fault!(ExpiredIteratorRenewedAtStart).then_some(IteratorStart::Start);
        let from = start.as_ref().unwrap_or(&self.start);
        let iterator = self.streams.get_iterator(&self.shard, from).await?;
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

    fn advance(&mut self, mut page: RecordPage) -> ShardPage {
        if fault!(SequenceNumbersComparedAsText)
            && let IteratorStart::After(last) = &self.start
        {
            page.records.retain(|change| change.sequence_number.as_str() > last.as_str());
        }
        self.had_number = self.has_sequence_number();
        if let Some(last) = page.records.last() {
            self.start = IteratorStart::After(last.sequence_number.clone());
        }
        let end = page.next_iterator.is_none();
        self.iterator = page.next_iterator;
        if end && fault!(LastPageDropped) {
            page.records.clear();
        }
        ShardPage { records: page.records, malformed: page.malformed, is_last: end }
    }
}
