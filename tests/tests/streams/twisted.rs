//! The simulated table with a twist that a test asks for, and with what was asked of it counted.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use stream_notifier::model::{ShardId, StreamLabel, UnixSeconds, ViewType};
use stream_notifier::streams::{
    IteratorStart, RecordPage, ShardFilter, ShardIterator, StreamError, StreamErrorKind,
    StreamPage, Streams,
};
use stream_notifier_tests::streams_model::{Model, ModelStreams};

/// A table.
#[derive(Debug)]
pub struct Twisted {
    pub inner: ModelStreams,
    /// The label of a stream that has keys only.
    pub keys_only: Mutex<Option<String>>,
    /// A shard that is never listed although it is there.
    pub unlisted: Mutex<Option<String>>,
    /// A shard of which no iterator is given although it is there.
    pub unfound: Mutex<Option<String>>,
    /// How many records were handed out.
    pub handed_out: AtomicUsize,
}

impl Twisted {
    /// A table without a twist.
    pub fn new(inner: ModelStreams) -> Self {
        let [keys_only, unlisted, unfound] = std::array::from_fn(|_| Mutex::default());
        Self { inner, keys_only, unlisted, unfound, handed_out: AtomicUsize::new(0) }
    }

    /// The model, its clock set to now.
    pub fn with<T>(&self, act: impl FnOnce(&mut Model) -> T) -> T {
        self.inner.with(act)
    }
}

impl Streams for Twisted {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move { self.inner.list().await })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            let mut page = self.inner.describe(stream, listed, after).await?;
            if self.keys_only.lock().unwrap().as_deref() == Some(stream.as_str()) {
                page.view_type = ViewType::KeysOnly;
            }
            let unlisted = self.unlisted.lock().unwrap().clone();
            page.shards.retain(|shard| Some(&shard.id.name) != unlisted.as_ref());
            Ok(page)
        })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            let iterator = self.inner.get_iterator(shard, from).await?;
            if self.unfound.lock().unwrap().as_ref() == Some(&shard.name) {
                let (action, kind) = ("dynamodb:GetShardIterator", StreamErrorKind::NotFound);
                let service_time = Some(UnixSeconds((self.inner.clock().now() / 1_000) as i64));
                return Err(StreamError { action, kind, service_time, source: None });
            }
            Ok(iterator)
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let page = self.inner.get_records(iterator).await?;
            self.handed_out.fetch_add(page.records.len(), Ordering::Relaxed);
            Ok(page)
        })
    }
}
