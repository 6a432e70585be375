//! The worker's requests and posts, observed and checked for their order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};

use bytes::Bytes;
use futures::future::BoxFuture;
use serde_json::Value;
use stream_notifier::aws::DynamoDbStreams;
use stream_notifier::delivery::{Gateway, PostResponse};
use stream_notifier::model::{ShardId, StreamLabel};
use stream_notifier::streams::{
    IteratorStart, RecordPage, ShardFilter, ShardIterator, StreamError, StreamPage, Streams,
};
use stream_notifier_tests::streams_model::{Model, ModelRecord};

use super::{MIDNIGHT_MS, ROUNDS, Service};

/// Records the requests and posts of the worker, and checks their order.
#[derive(Debug, Default)]
pub struct Observer {
    /// Shards of the second day for which an iterator was requested.
    started: Mutex<BTreeSet<usize>>,
    /// Shards of the second day whose last page was returned.
    finished: Mutex<BTreeSet<usize>>,
    /// The last posted value of each item.
    posted: Mutex<BTreeMap<String, u64>>,
    messages: AtomicUsize,
    pub violations: Mutex<Vec<String>>,
}

/// Progress of the second day: shards started, shards finished, messages.
pub type Progress = [usize; 3];

impl Observer {
    pub fn progress(&self) -> Progress {
        let count = |shards: &Mutex<BTreeSet<usize>>| shards.lock().unwrap().len();
        [count(&self.started), count(&self.finished), self.messages.load(Ordering::Relaxed)]
    }

    fn add_violation(&self, text: String) {
        self.violations.lock().unwrap().push(text);
    }

    /// Checks that the parent is finished. A parent of the first day need not be read.
    fn record_start(&self, model: &Model, shard: &ShardId) {
        let index = model.shard(shard.stream.as_str(), &shard.name).expect("the shard must exist");
        let is_of_day = |parent: &usize| model.shards()[*parent].closed >= Some(MIDNIGHT_MS);
        let parent = model.shards()[index].parent.filter(is_of_day);
        if parent.is_some_and(|parent| !self.finished.lock().unwrap().contains(&parent)) {
            self.add_violation(format!("{shard} was started before its parent was finished"));
        }
        if model.shards()[index].opened >= MIDNIGHT_MS {
            self.started.lock().unwrap().insert(index);
        }
    }

    fn record_end(&self, model: &Model, iterator: &ShardIterator) {
        let shard = model.shard_of(&iterator.0).expect("the iterator must be known");
        if model.shards()[shard].closed >= Some(MIDNIGHT_MS) {
            self.finished.lock().unwrap().insert(shard);
        }
    }
}

/// The progress of a worker that has read everything until now.
pub fn expected_progress(model: &Model) -> Progress {
    let is_of_day = |at: u64| (MIDNIGHT_MS..=model.now()).contains(&at);
    let matches = |record: &&ModelRecord| record.key.pk.starts_with("target_pk");
    [
        model.shards().iter().filter(|shard| is_of_day(shard.opened)).count(),
        model.shards().iter().filter(|shard| shard.closed.is_some_and(is_of_day)).count(),
        model.records().iter().filter(|record| is_of_day(record.created)).filter(matches).count(),
    ]
}

/// The real client. The paused clock stands still while a request is in flight.
#[derive(Debug)]
pub struct ObservedStreams {
    pub streams: DynamoDbStreams,
    pub service: Arc<Service>,
    pub observer: Arc<Observer>,
    /// The number of requests in flight, and the guard that holds the clock during them.
    pub in_flight: Mutex<(usize, Option<mpsc::Sender<()>>)>,
}

impl ObservedStreams {
    async fn send<T>(
        &self,
        request: impl Future<Output = Result<T, StreamError>>,
    ) -> Result<T, StreamError> {
        // Advances the table to the current time.
        drop(self.service.table());
        self.hold_clock();
        let response = request.await;
        self.release_clock();
        response
    }

    /// Starts a blocking task, because tokio does not move a paused clock while one runs.
    fn hold_clock(&self) {
        let mut in_flight = self.in_flight.lock().unwrap();
        in_flight.0 += 1;
        in_flight.1.get_or_insert_with(|| {
            let (guard, held) = mpsc::channel::<()>();
            tokio::task::spawn_blocking(move || held.recv());
            guard
        });
    }

    fn release_clock(&self) {
        let mut in_flight = self.in_flight.lock().unwrap();
        in_flight.0 -= 1;
        if in_flight.0 == 0 {
            in_flight.1 = None;
        }
    }
}

impl Streams for ObservedStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move { self.send(self.streams.list()).await })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move { self.send(self.streams.describe(stream, listed, after)).await })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            self.observer.record_start(&self.service.table(), shard);
            self.send(self.streams.get_iterator(shard, from)).await
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let page = self.send(self.streams.get_records(iterator)).await?;
            if page.next_iterator.is_none() {
                self.observer.record_end(&self.service.table(), iterator);
            }
            Ok(page)
        })
    }
}

/// Each round writes the value of the last one plus 1, so the values of an item must arrive in this order.
impl Gateway for Observer {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let text = String::from_utf8_lossy(message).into_owned();
            let message: Value = serde_json::from_str(&text).unwrap_or_default();
            let item = message["pk"].as_str().unwrap_or_default().to_owned();
            let expected =
                self.posted.lock().unwrap().get(&item).map_or(ROUNDS + 1, |last| last + 1);
            if message["value"].as_str() != Some(&expected.to_string())
                || message["sk"] != connection
            {
                self.add_violation(format!("{text} to {connection} instead of {expected}"));
            }
            self.posted.lock().unwrap().insert(item, expected);
            self.messages.fetch_add(1, Ordering::Relaxed);
            PostResponse::Status { status: 200, mentions_connection_id: false }
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move { unreachable!("the worker must not close {connection}") })
    }
}
