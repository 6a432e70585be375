//! Reads one shard from a position to its end: an expired iterator is asked for again where reading
//! stood, and the last page's records are handed out with the news that it was the last.

use std::sync::Arc;

use crate::model::{Change, ShardId};
use crate::streams::service::error::{StreamError, StreamErrorKind};
use crate::streams::service::streams::{ReadFrom, RecordPage, ShardIterator, Streams};

/// One shard's reader.
#[derive(Debug)]
pub struct ShardReader {
    streams: Arc<dyn Streams>,
    shard: ShardId,
    /// Where a new iterator begins: after the last record read, if there was one.
    from: ReadFrom,
    iterator: Option<ShardIterator>,
    had_number: bool,
}

/// What one read gave.
#[derive(Debug, PartialEq)]
pub struct Read {
    /// Records, in order.
    pub changes: Vec<Change>,
    /// How many more there were that no use can be made of.
    pub unreadable: usize,
    /// Whether the shard has no more, now and ever.
    pub end: bool,
}

impl ShardReader {
    /// A reader of `shard` that begins at `from`.
    pub fn new(streams: Arc<dyn Streams>, shard: ShardId, from: ReadFrom) -> Self {
        Self { streams, shard, from, iterator: None, had_number: false }
    }

    /// The shard.
    pub fn shard(&self) -> &ShardId {
        &self.shard
    }

    /// Whether, before the last read, there was a record to go on after: then a service tells by
    /// itself if what came next is gone.
    pub fn had_number(&self) -> bool {
        self.had_number
    }

    /// Whether there is a record to go on after.
    pub fn is_numbered(&self) -> bool {
        matches!(self.from, ReadFrom::After(_))
    }

    /// Reads the next page. After an error it may be called again and loses nothing.
    pub async fn read(&mut self) -> Result<Read, StreamError> {
        let iterator = match self.iterator.clone() {
            Some(iterator) => iterator,
            None => self.streams.iterator(&self.shard, &self.from).await?,
        };
        let page = match self.streams.records(&iterator).await {
            Err(error) if error.kind == StreamErrorKind::ExpiredIterator => {
                self.renewed_page().await?
            }
            Err(error) => {
                // It is still good where it was not what failed, and a new one would cost a call.
                self.iterator = error.kind.may_pass().then_some(iterator);
                return Err(error);
            }
            Ok(page) => page,
        };
        Ok(self.advance(page))
    }

    /// Goes on from the oldest record there is, after the ones asked for were trimmed.
    pub fn restart(&mut self) {
        self.from = ReadFrom::Start;
        self.iterator = None;
    }

    async fn renewed_page(&mut self) -> Result<RecordPage, StreamError> {
        self.iterator = None;
        let start = fault!(ExpiredIteratorRenewedAtStart).then_some(ReadFrom::Start);
        let from = start.as_ref().unwrap_or(&self.from);
        let iterator = self.streams.iterator(&self.shard, from).await?;
        let mut page = self.streams.records(&iterator).await?;
        while fault!(ExpiredIteratorRenewedAtLatest)
            && !self.is_numbered()
            && !page.changes.is_empty()
        {
            page.changes.clear();
            if let Some(next) = &page.next {
                page = self.streams.records(next).await?;
            }
        }
        Ok(page)
    }

    fn advance(&mut self, mut page: RecordPage) -> Read {
        if fault!(SequenceNumbersComparedAsText)
            && let ReadFrom::After(last) = &self.from
        {
            page.changes.retain(|change| change.sequence_number.as_str() > last.as_str());
        }
        self.had_number = self.is_numbered();
        if let Some(last) = page.changes.last() {
            self.from = ReadFrom::After(last.sequence_number.clone());
        }
        let end = page.next.is_none();
        self.iterator = page.next;
        if end && fault!(LastPageDropped) {
            page.changes.clear();
        }
        Read { changes: page.changes, unreadable: page.unreadable, end }
    }
}
