//! Three ways to read everything: with the SDK, with the notifier's client, with a whole notifier.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use aws_sdk_dynamodbstreams::Client;
use aws_sdk_dynamodbstreams::types::ShardIteratorType;
use axum::body::Bytes;
use futures::future::BoxFuture;
use stream_notifier::aws::{ApiGateway, AwsConfig, DynamoDbStreams};
use stream_notifier::delivery::{Gateway, PostResponse};
use stream_notifier::model::{ShardId, StreamLabel};
use stream_notifier::rules::EvaluatorPool;
use stream_notifier::streams::{
    InitialPosition, IteratorStart, RecordPage, ShardFilter, ShardIterator, StreamError,
    StreamPage, StreamSource, Streams,
};
use stream_notifier::telemetry::Metrics;
use stream_notifier::worker::{Backends, run_worker};
use stream_notifier_tests::fakes::{FakeConnections, MemoryStore, job};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::service::sk;
use crate::{CONNECTIONS, DELIVERED, RECORDS, support};

const LIMIT: Duration = Duration::from_secs(120);
const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev";

/// Reads everything with the SDK, each shard in a task of its own, and does nothing with it.
pub async fn sdk(client: &Client) -> Result<()> {
    let mut readers = JoinSet::new();
    for iterator in support::iterators(client, ShardIteratorType::TrimHorizon).await? {
        let client = client.clone();
        readers.spawn(async move {
            let mut next = iterator.send().await?.shard_iterator;
            let mut records = 0;
            while let Some(iterator) = next {
                let page = client.get_records().shard_iterator(iterator).send().await?;
                records += page.records().len();
                next = page.next_shard_iterator;
            }
            anyhow::Ok(records)
        });
    }
    all(readers).await
}

/// Reads everything with the notifier's client alone.
pub async fn client(endpoint: &str) -> Result<()> {
    let streams = Arc::new(streams(&AwsConfig::local(endpoint).await));
    let label = streams.list().await?.pop().context("a stream")?;
    let mut readers = JoinSet::new();
    for shard in streams.describe(&label, ShardFilter::All, None).await?.shards {
        let streams = streams.clone();
        readers.spawn(async move {
            let mut next = Some(streams.get_iterator(&shard.id, &IteratorStart::Start).await?);
            let mut records = 0;
            while let Some(iterator) = next {
                let page = streams.get_records(&iterator).await?;
                records += page.records.len();
                next = page.next_iterator;
            }
            anyhow::Ok(records)
        });
    }
    all(readers).await
}

fn streams(aws: &AwsConfig) -> DynamoDbStreams {
    DynamoDbStreams::new(aws, "eu-west-1", TABLE)
}

async fn all(readers: JoinSet<Result<usize>>) -> Result<()> {
    let mut records = 0;
    for read in readers.join_all().await {
        records += read?;
    }
    ensure!(records == RECORDS, "{records} records");
    Ok(())
}

/// Reads everything with a whole worker, which delivers what matches.
pub async fn notifier(endpoint: &str, evaluator: &EvaluatorPool) -> Result<()> {
    let aws = AwsConfig::local(endpoint).await;
    let streams = streams(&aws);
    let label = streams.list().await?.pop().context("a stream")?;
    let shards = streams.describe(&label, ShardFilter::All, None).await?.shards.len();
    let table_of_connections = FakeConnections::new(1_000);
    for n in 0..CONNECTIONS {
        table_of_connections.put_new(&format!("L0SM9cOFvHcC{n:03}="), &sk(n));
    }
    let done = Arc::new(Done { to_read: shards, ..Done::default() });
    let backends = Backends {
        streams: Arc::new(Watched { streams, done: done.clone() }),
        connections: Arc::new(table_of_connections),
        gateway: Arc::new(Counted {
            gateway: ApiGateway::new(&aws, "eu-west-1", &web_socket_api(endpoint)?),
            done: done.clone(),
        }),
        checkpoints: Arc::new(MemoryStore::default()),
        dead_letters: None,
    };
    let (mut job, _pictures) = job("bench", InitialPosition::TrimHorizon, &Metrics::default());
    (job.consumer.source, job.consumer.table) = (StreamSource::Stream(label), TABLE.to_owned());
    job.evaluators = evaluator.clone();
    let stop = CancellationToken::new();
    let told = stop.clone();
    let worker = tokio::spawn(async move { run_worker(&backends, &job, &told).await });
    timeout(LIMIT, done.all.notified()).await.context("it does not come to an end")?;
    stop.cancel();
    worker.await?;
    ensure!(done.posts.load(Ordering::Relaxed) == RECORDS / DELIVERED);
    Ok(())
}

/// The same service by another name, as with AWS: connections are kept by name, and one over which a
/// page came keeps the room for the next.
fn web_socket_api(endpoint: &str) -> Result<String> {
    let (_, port) = endpoint.rsplit_once(':').context("a port")?;
    let (port, _) = port.split_once('/').context("a path")?;
    Ok(format!("http://localhost:{port}/api"))
}

#[derive(Debug, Default)]
struct Done {
    to_read: usize,
    ends: AtomicUsize,
    posts: AtomicUsize,
    all: Notify,
}

impl Done {
    fn look(&self) {
        let ends = self.ends.load(Ordering::Relaxed);
        if ends == self.to_read && self.posts.load(Ordering::Relaxed) == RECORDS / DELIVERED {
            self.all.notify_one();
        }
    }
}

/// The real client; shards that come to their ends are counted.
#[derive(Debug)]
struct Watched {
    streams: DynamoDbStreams,
    done: Arc<Done>,
}

impl Streams for Watched {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        Box::pin(async move { self.streams.list().await })
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        Box::pin(async move { self.streams.describe(stream, listed, after).await })
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        Box::pin(async move { self.streams.get_iterator(shard, from).await })
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let page = self.streams.get_records(iterator).await?;
            self.done.ends.fetch_add(usize::from(page.next_iterator.is_none()), Ordering::Relaxed);
            self.done.look();
            Ok(page)
        })
    }
}

/// The real client; posts that arrive are counted.
#[derive(Debug)]
struct Counted {
    gateway: ApiGateway,
    done: Arc<Done>,
}

impl Gateway for Counted {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let answer = self.gateway.post(connection, message).await;
            let arrived = matches!(answer, PostResponse::Status { status: 200, .. });
            self.done.posts.fetch_add(usize::from(arrived), Ordering::Relaxed);
            self.done.look();
            answer
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move { self.gateway.disconnect(connection).await })
    }
}
