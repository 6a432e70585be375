//! Three readers of all records: the SDK, the notifier's client, and a complete notifier.

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
use stream_notifier_tests::fakes::{FakeConnections, MemoryStore, worker_config};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::service::sk;
use crate::{CONNECTIONS, RECORDS, RECORDS_PER_MATCH, support};

const TIMEOUT: Duration = Duration::from_secs(120);
const TABLE: &str = "arn:aws:dynamodb:eu-west-1:123456789012:table/sample-table-dev";

/// Reads all records with the SDK, one task per shard, and discards them.
pub async fn sdk(client: &Client) -> Result<()> {
    let mut readers = JoinSet::new();
    for iterator in support::iterator_requests(client, ShardIteratorType::TrimHorizon).await? {
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
    wait_for_all(readers).await
}

/// Reads all records with the notifier's client, and discards them.
pub async fn client(endpoint: &str) -> Result<()> {
    let streams = Arc::new(streams(&AwsConfig::local(endpoint).await));
    let label = streams.list().await?.pop().context("a stream")?;
    let mut readers = JoinSet::new();
    for shard in streams.describe(&label, ShardFilter::All, None).await?.shards {
        let streams = streams.clone();
        readers.spawn(async move {
            let mut next =
                Some(streams.get_iterator(&shard.id, &IteratorStart::TrimHorizon).await?);
            let mut records = 0;
            while let Some(iterator) = next {
                let page = streams.get_records(&iterator).await?;
                records += page.records.len();
                next = page.next_iterator;
            }
            anyhow::Ok(records)
        });
    }
    wait_for_all(readers).await
}

fn streams(aws: &AwsConfig) -> DynamoDbStreams {
    DynamoDbStreams::new(aws, "eu-west-1", TABLE)
}

async fn wait_for_all(readers: JoinSet<Result<usize>>) -> Result<()> {
    let mut records = 0;
    for read in readers.join_all().await {
        records += read?;
    }
    ensure!(records == RECORDS, "{records} records");
    Ok(())
}

/// Reads all records with a worker, which delivers those that match.
pub async fn notifier(endpoint: &str, evaluator: &EvaluatorPool) -> Result<()> {
    let aws = AwsConfig::local(endpoint).await;
    let streams = streams(&aws);
    let label = streams.list().await?.pop().context("a stream")?;
    let shards = streams.describe(&label, ShardFilter::All, None).await?.shards.len();
    let connections = FakeConnections::new(1_000);
    for n in 0..CONNECTIONS {
        connections.put_new(&format!("L0SM9cOFvHcC{n:03}="), &sk(n));
    }
    let progress = Arc::new(Progress { shards, ..Progress::default() });
    let backends = Backends {
        streams: Arc::new(CountingStreams { streams, progress: progress.clone() }),
        connections: Arc::new(connections),
        gateway: Arc::new(CountingGateway {
            gateway: ApiGateway::new(&aws, "eu-west-1", &web_socket_api(endpoint)?),
            progress: progress.clone(),
        }),
        checkpoints: Arc::new(MemoryStore::default()),
        dead_letters: None,
    };
    let (mut config, _health) =
        worker_config("bench", InitialPosition::TrimHorizon, &Metrics::default());
    (config.consumer.source, config.consumer.table) =
        (StreamSource::Stream(label), TABLE.to_owned());
    config.evaluators = evaluator.clone();
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let worker = tokio::spawn(async move { run_worker(&backends, &config, &stopped).await });
    timeout(TIMEOUT, progress.done.notified()).await.context("the notifier does not finish")?;
    stop.cancel();
    worker.await?;
    ensure!(progress.posts.load(Ordering::Relaxed) == RECORDS / RECORDS_PER_MATCH);
    Ok(())
}

/// The address of the same service with another host name.
///
/// The client pools connections by host name, and a connection keeps its buffer for a page. With AWS the
/// host names differ too.
fn web_socket_api(endpoint: &str) -> Result<String> {
    let (_, port) = endpoint.rsplit_once(':').context("a port")?;
    let (port, _) = port.split_once('/').context("a path")?;
    Ok(format!("http://localhost:{port}/api"))
}

#[derive(Debug, Default)]
struct Progress {
    shards: usize,
    finished_shards: AtomicUsize,
    posts: AtomicUsize,
    done: Notify,
}

impl Progress {
    fn notify_if_done(&self) {
        let finished = self.finished_shards.load(Ordering::Relaxed);
        if finished == self.shards
            && self.posts.load(Ordering::Relaxed) == RECORDS / RECORDS_PER_MATCH
        {
            self.done.notify_one();
        }
    }
}

/// The real client. Counts finished shards.
#[derive(Debug)]
struct CountingStreams {
    streams: DynamoDbStreams,
    progress: Arc<Progress>,
}

impl Streams for CountingStreams {
    fn list(&self) -> BoxFuture<'_, Result<Vec<StreamLabel>, StreamError>> {
        self.streams.list()
    }

    fn describe<'a>(
        &'a self,
        stream: &'a StreamLabel,
        listed: ShardFilter<'a>,
        after: Option<&'a ShardId>,
    ) -> BoxFuture<'a, Result<StreamPage, StreamError>> {
        self.streams.describe(stream, listed, after)
    }

    fn get_iterator<'a>(
        &'a self,
        shard: &'a ShardId,
        from: &'a IteratorStart,
    ) -> BoxFuture<'a, Result<ShardIterator, StreamError>> {
        self.streams.get_iterator(shard, from)
    }

    fn get_records<'a>(
        &'a self,
        iterator: &'a ShardIterator,
    ) -> BoxFuture<'a, Result<RecordPage, StreamError>> {
        Box::pin(async move {
            let page = self.streams.get_records(iterator).await?;
            let is_last = usize::from(page.next_iterator.is_none());
            self.progress.finished_shards.fetch_add(is_last, Ordering::Relaxed);
            self.progress.notify_if_done();
            Ok(page)
        })
    }
}

/// The real client. Counts accepted posts.
#[derive(Debug)]
struct CountingGateway {
    gateway: ApiGateway,
    progress: Arc<Progress>,
}

impl Gateway for CountingGateway {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let response = self.gateway.post(connection, message).await;
            let is_accepted = matches!(response, PostResponse::Status { status: 200, .. });
            self.progress.posts.fetch_add(usize::from(is_accepted), Ordering::Relaxed);
            self.progress.notify_if_done();
            response
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        self.gateway.disconnect(connection)
    }
}
