//! A complete worker with the real API Gateway client. Stream and table are in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use bytes::Bytes;
use futures::future::BoxFuture;
use stream_notifier::aws::{ApiGateway, AwsConfig};
use stream_notifier::delivery::{Gateway, PostRateLimiter, PostResponse};
use stream_notifier::streams::InitialPosition;
use stream_notifier::telemetry::Metrics;
use stream_notifier::worker::{Backends, WorkerConfig, run_worker};
use stream_notifier_tests::fakes::{
    FakeConnections, FakeStreams, MemoryStore, new_record, worker_config,
};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::gateway::connection;

const TIMEOUT: Duration = Duration::from_secs(60);

/// A running worker.
pub struct Notifier {
    streams: Arc<FakeStreams>,
    gateway: Arc<CountingGateway>,
    connections: usize,
    change_count: u32,
    stop: CancellationToken,
    worker: JoinHandle<()>,
}

impl Notifier {
    /// Starts a worker with this number of stored connections and this rate limit.
    pub async fn start(endpoint: &str, connections: usize, posts_per_second: u32) -> Self {
        let streams = Arc::new(FakeStreams::new(1_000));
        streams.open("only", None);
        let table = FakeConnections::new(1_000);
        for n in 0..connections {
            table.put_new(&connection(n), "hoge");
        }
        let aws = AwsConfig::local("http://127.0.0.1:9").await;
        let counting_gateway = Arc::new(CountingGateway {
            gateway: ApiGateway::new(&aws, "eu-west-1", endpoint),
            remaining: AtomicUsize::new(0),
            done: Notify::new(),
        });
        let backends = Backends {
            streams: streams.clone(),
            connections: Arc::new(table),
            gateway: counting_gateway.clone(),
            checkpoints: Arc::new(MemoryStore::default()),
            dead_letters: None,
        };
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let (config, _) = worker_config("bench", InitialPosition::Latest, &Metrics::default());
        let post_limiter = Arc::new(PostRateLimiter::new(posts_per_second));
        let config = WorkerConfig { post_limiter, ..config };
        let worker = tokio::spawn(async move { run_worker(&backends, &config, &stopped).await });
        Self { streams, gateway: counting_gateway, connections, change_count: 0, stop, worker }
    }

    /// Changes one item. Returns the time from its read to the last response.
    pub async fn change_item(&mut self) -> Result<Duration> {
        self.change_count += 1;
        self.gateway.remaining.store(self.connections, Ordering::Relaxed);
        self.streams.append("only", new_record(self.change_count, "fuga", "hoge"));
        timeout(TIMEOUT, self.gateway.done.notified()).await.context("a message is missing")?;
        let read_at = self.streams.read_at().context("the record was not read")?;
        Ok(Instant::now().duration_since(read_at))
    }

    /// Stops the worker.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.worker.await?)
    }
}

/// The real client. Counts accepted posts.
#[derive(Debug)]
struct CountingGateway {
    gateway: ApiGateway,
    remaining: AtomicUsize,
    done: Notify,
}

impl Gateway for CountingGateway {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let response = self.gateway.post(connection, message).await;
            let is_accepted = matches!(response, PostResponse::Status { status: 200, .. });
            if is_accepted && self.remaining.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.done.notify_one();
            }
            response
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        self.gateway.disconnect(connection)
    }
}
