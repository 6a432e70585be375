//! The simulated streams with responses that a test overrides, and a count of the records returned.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::BoxFuture;
use stream_notifier::model::{ShardId, StreamLabel, UnixSeconds, ViewType};
use stream_notifier::streams::{
    IteratorStart, RecordPage, ShardFilter, ShardIterator, StreamError, StreamErrorKind,
    StreamPage, Streams,
};
use stream_notifier_tests::streams_model::{Model, ModelStreams};

#[derive(Debug)]
pub struct OverriddenStreams {
    pub inner: ModelStreams,
    keys_only: Mutex<Option<String>>,
    unlisted: Mutex<Option<String>>,
    not_found: Mutex<Option<String>>,
    records_returned: AtomicUsize,
}

impl OverriddenStreams {
    pub fn new(inner: ModelStreams) -> Self {
        let [keys_only, unlisted, not_found] = std::array::from_fn(|_| Mutex::default());
        Self { inner, keys_only, unlisted, not_found, records_returned: AtomicUsize::new(0) }
    }

    /// Applies a function to the model, after its clock is set to the current time.
    pub fn with<T>(&self, act: impl FnOnce(&mut Model) -> T) -> T {
        self.inner.with(act)
    }

    /// Sets the stream, by label, that has the view type `KEYS_ONLY`.
    pub fn set_keys_only(&self, label: Option<String>) {
        *self.keys_only.lock().unwrap() = label;
    }

    /// Sets the shard, by name, that no listing shows although it exists.
    pub fn set_unlisted(&self, shard: Option<String>) {
        *self.unlisted.lock().unwrap() = shard;
    }

    /// Sets the shard, by name, for which no iterator is returned although it exists.
    pub fn set_not_found(&self, shard: Option<String>) {
        *self.not_found.lock().unwrap() = shard;
    }

    /// The number of records that all pages until now had.
    pub fn records_returned(&self) -> usize {
        self.records_returned.load(Ordering::Relaxed)
    }
}

impl Streams for OverriddenStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        self.inner.list()
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
            if self.not_found.lock().unwrap().as_ref() == Some(&shard.name) {
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
            self.records_returned.fetch_add(page.records.len(), Ordering::Relaxed);
            Ok(page)
        })
    }
}
