//! Streams of one process: the model of DynamoDB Streams, with requests that fail or time out. It
//! checks every read: none before the claim, none of a child before its parent is settled, and none
//! while the memory is full.

use std::future::pending;

use futures::future::BoxFuture;
use stream_notifier::model::{ShardId, StreamLabel};
use stream_notifier::streams::{
    IteratorStart, RecordPage, ShardFilter, ShardIterator, StreamError, StreamErrorKind,
    StreamPage, Streams,
};
use tokio::time::sleep;

use super::boundary::Boundary;
use super::faults::active;
use super::worker_process::{Call, CallSide};
use super::world::State;
use crate::streams_model::Model;

enum Fault {
    Fails(StreamErrorKind),
    /// There is never a response.
    TimesOut,
}

impl State {
    fn stream_fault(&mut self, model: &Model) -> Option<Fault> {
        if let Some(kind) = active(self.faults.streams, model.now()) {
            self.counts.add(match kind {
                StreamErrorKind::AccessDenied => "streams: access denied",
                StreamErrorKind::NoCredentials => "streams without credentials",
                StreamErrorKind::Throttled => "streams throttled for a period",
                _ => "streams unavailable for a period",
            });
            return Some(Fault::Fails(kind));
        }
        if !self.chance(self.faults.chances.streams) {
            return None;
        }
        if self.rng.u8(..8) == 0 {
            self.counts.add("stream request timed out");
            return Some(Fault::TimesOut);
        }
        self.counts.add("stream request failed");
        Some(Fault::Fails(StreamErrorKind::Unavailable))
    }
}

impl Boundary {
    /// Makes one request, which fails before or after its effect, or not at all.
    async fn call_streams<T>(
        &self,
        call: Call,
        response: impl Future<Output = Result<T, StreamError>>,
    ) -> Result<T, StreamError> {
        self.pass(call, CallSide::Before).await;
        let (fault, is_after) =
            self.world.with(|model, state| (state.stream_fault(model), state.rng.bool()));
        sleep(self.world.latency()).await;
        let response = match &fault {
            Some(_) if !is_after => None,
            _ => Some(response.await),
        };
        self.pass(call, CallSide::After).await;
        match (fault, response) {
            (None, Some(response)) => response,
            (Some(Fault::Fails(kind)), _) => Err(failed(kind)),
            (Some(Fault::TimesOut), _) | (None, None) => pending().await,
        }
    }
}

fn failed(kind: StreamErrorKind) -> StreamError {
    StreamError { action: "dynamodb:Simulated", kind, service_time: None, source: None }
}

impl Streams for Boundary {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move { self.call_streams(Call::ListStreams, self.streams.list()).await })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            let described = self
                .call_streams(Call::DescribeStream, self.streams.describe(stream, listed, after))
                .await;
            self.world.with(|model, state| {
                state.trace_line(model, || {
                    let index = |shard: &ShardId| model.shard(stream.as_str(), &shard.name);
                    let filter = match listed {
                        ShardFilter::All => "all".to_owned(),
                        ShardFilter::ChildrenOf(parent) => {
                            format!("children of {:?}", index(parent))
                        }
                    };
                    let described = described.as_ref().map_err(|error| error.kind).map(|page| {
                        let shards = page.shards.iter().filter_map(|shard| index(&shard.id));
                        (
                            page.status,
                            shards.collect::<Vec<_>>(),
                            page.next_page.as_ref().and_then(index),
                        )
                    });
                    format!("{}: {filter} of {stream}: {described:?}", self.process)
                });
            });
            described
        })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move {
            let request = async {
                match (self.streams.get_iterator(shard, from).await, from) {
                    // As the AWS client does for a service without AT_TIMESTAMP.
                    (Err(error), IteratorStart::At(_))
                        if error.kind == StreamErrorKind::Invalid =>
                    {
                        self.world.count("timestamp rejected");
                        self.streams.get_iterator(shard, &IteratorStart::TrimHorizon).await
                    }
                    (response, _) => response,
                }
            };
            let response = self.call_streams(Call::GetShardIterator, request).await;
            let index = self.world.with(|model, state| {
                let index = model.shard(shard.stream.as_str(), &shard.name);
                state.trace_line(model, || {
                    let response = response.as_ref().map(|_| "issued").map_err(|error| error.kind);
                    format!(
                        "{}: iterator of shard {index:?} from {from:?}: {response:?}",
                        self.process
                    )
                });
                index
            });
            let Some(index) = index else { return response };
            // The iterator names the shard, so that a read can be attributed to it.
            response.map(|ShardIterator(text)| ShardIterator(format!("{index} {text}")))
        })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let Some((shard, text)) = iterator.0.split_once(' ') else {
                return Err(failed(StreamErrorKind::Invalid));
            };
            let shard: usize = shard.parse().expect("the iterator names its shard");
            let process = self.process.number;
            let inner = ShardIterator(text.to_owned());
            let request = async {
                self.world.with(|model, state| state.check_read(model, process, shard));
                self.streams.get_records(&inner).await
            };
            let mut response = self.call_streams(Call::GetRecords, request).await;
            self.world.with(|model, state| state.record_page(model, process, shard, &response));
            if let Ok(RecordPage { next_iterator: Some(ShardIterator(next)), .. }) = &mut response {
                *next = format!("{shard} {next}");
            }
            response
        })
    }
}
