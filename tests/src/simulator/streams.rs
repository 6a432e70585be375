//! The streams as one life sees them: the simulated table, with calls that fail or hang, and for a
//! while all of them. What is asked is looked at here: nothing before the claim, no child before its
//! parent is settled, no page while too much is at work.

use std::future::pending;

use futures::future::BoxFuture;
use stream_notifier::model::{ShardId, StreamLabel};
use stream_notifier::streams::{
    IteratorStart, RecordPage, ShardFilter, ShardIterator, StreamError, StreamErrorKind,
    StreamPage, Streams,
};
use tokio::time::sleep;

use super::boundary::Outside;
use super::faults::now;
use super::worker_process::{Call, When};
use super::world::State;
use crate::streams_model::Model;

/// How a call goes wrong.
enum Fault {
    Fails(StreamErrorKind),
    /// No answer ever.
    Hangs,
}

impl State {
    fn stream_fault(&mut self, model: &Model) -> Option<Fault> {
        if let Some(kind) = now(self.faults.streams, model.now()) {
            self.counts.add(match kind {
                StreamErrorKind::AccessDenied => "streams denied",
                StreamErrorKind::NoCredentials => "streams without credentials",
                StreamErrorKind::Throttled => "streams throttled for a while",
                _ => "streams unavailable for a while",
            });
            return Some(Fault::Fails(kind));
        }
        if !self.chance(self.faults.chances.streams) {
            return None;
        }
        if self.rng.u8(..8) == 0 {
            self.counts.add("call to the streams hangs");
            return Some(Fault::Hangs);
        }
        self.counts.add("call to the streams fails");
        Some(Fault::Fails(StreamErrorKind::Unavailable))
    }
}

impl Outside {
    /// One call to the streams, which goes wrong before or after it is answered, or not at all.
    async fn call<T>(
        &self,
        call: Call,
        answer: impl Future<Output = Result<T, StreamError>>,
    ) -> Result<T, StreamError> {
        self.pass(call, When::Before).await;
        let (fault, is_after) =
            self.world.with(|model, state| (state.stream_fault(model), state.rng.bool()));
        sleep(self.world.latency()).await;
        let answer = match &fault {
            Some(_) if !is_after => None,
            _ => Some(answer.await),
        };
        self.pass(call, When::After).await;
        match (fault, answer) {
            (None, Some(answer)) => answer,
            (Some(Fault::Fails(kind)), _) => Err(failed(kind)),
            (Some(Fault::Hangs), _) | (None, None) => pending().await,
        }
    }
}

fn failed(kind: StreamErrorKind) -> StreamError {
    StreamError { action: "dynamodb:Simulated", kind, service_time: None, source: None }
}

impl Streams for Outside {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move { self.call(Call::ListStreams, self.streams.list()).await })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move {
            let described =
                self.call(Call::DescribeStream, self.streams.describe(stream, listed, after)).await;
            self.world.with(|model, state| {
                state.note(model, || {
                    let index = |shard: &ShardId| model.shard(stream.as_str(), &shard.name);
                    let asked = match listed {
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
                    format!("{}: {asked} of {stream}: {described:?}", self.life)
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
            let asked = async {
                match (self.streams.get_iterator(shard, from).await, from) {
                    // What the client of AWS does where the service does not know timestamps.
                    (Err(error), IteratorStart::At(_))
                        if error.kind == StreamErrorKind::Invalid =>
                    {
                        self.world.count("timestamp refused");
                        self.streams.get_iterator(shard, &IteratorStart::Start).await
                    }
                    (answer, _) => answer,
                }
            };
            let answer = self.call(Call::GetShardIterator, asked).await;
            let index = self.world.with(|model, state| {
                let index = model.shard(shard.stream.as_str(), &shard.name);
                state.note(model, || {
                    let answer = answer.as_ref().map(|_| "given").map_err(|error| error.kind);
                    format!("{}: iterator of shard {index:?} from {from:?}: {answer:?}", self.life)
                });
                index
            });
            let Some(index) = index else { return answer };
            // The shard is noted in it, so that a read can be told from others.
            answer.map(|ShardIterator(text)| ShardIterator(format!("{index} {text}")))
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
            let shard: usize = shard.parse().expect("as it was given");
            let life = self.life.number;
            let inner = ShardIterator(text.to_owned());
            let asked = async {
                self.world.with(|model, state| state.check_reading(model, life, shard));
                self.streams.get_records(&inner).await
            };
            let mut answer = self.call(Call::GetRecords, asked).await;
            self.world.with(|model, state| state.take_page(model, life, shard, &answer));
            if let Ok(RecordPage { next_iterator: Some(ShardIterator(next)), .. }) = &mut answer {
                *next = format!("{shard} {next}");
            }
            answer
        })
    }
}
