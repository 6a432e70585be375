//! A whole worker with the real API Gateway client; stream and table are in memory.

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
use stream_notifier_tests::fakes::{FakeConnections, FakeStreams, MemoryStore, change, job};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use super::gateway::connection;

const LIMIT: Duration = Duration::from_secs(60);

/// A worker at work.
pub struct Notifier {
    streams: Arc<FakeStreams>,
    counted: Arc<Counted>,
    connections: usize,
    changes: u32,
    stop: CancellationToken,
    worker: JoinHandle<()>,
}

impl Notifier {
    /// One with so many connections stored, that may post so often a second.
    pub async fn start(endpoint: &str, connections: usize, posts_per_second: u32) -> Self {
        let streams = Arc::new(FakeStreams::new(1_000));
        streams.open("only", None);
        let table = FakeConnections::new(1_000);
        for n in 0..connections {
            table.put_new(&connection(n), "hoge");
        }
        let aws = AwsConfig::local("http://127.0.0.1:9").await;
        let counted = Arc::new(Counted {
            gateway: ApiGateway::new(&aws, "eu-west-1", endpoint),
            left: AtomicUsize::new(0),
            all: Notify::new(),
        });
        let backends = Backends {
            streams: streams.clone(),
            connections: Arc::new(table),
            gateway: counted.clone(),
            checkpoints: Arc::new(MemoryStore::default()),
            dead_letters: None,
        };
        let stop = CancellationToken::new();
        let told = stop.clone();
        let (job, _) = job("bench", InitialPosition::Latest, &Metrics::default());
        let job =
            WorkerConfig { post_limiter: Arc::new(PostRateLimiter::new(posts_per_second)), ..job };
        let worker = tokio::spawn(async move { run_worker(&backends, &job, &told).await });
        Self { streams, counted, connections, changes: 0, stop, worker }
    }

    /// Makes one change; from the moment it was read to the last answer.
    pub async fn change(&mut self) -> Result<Duration> {
        self.changes += 1;
        self.counted.left.store(self.connections, Ordering::Relaxed);
        self.streams.append("only", change(self.changes, "fuga", "hoge"));
        timeout(LIMIT, self.counted.all.notified()).await.context("not everybody was told")?;
        let read_at = self.streams.read_at().context("it was read")?;
        Ok(Instant::now().duration_since(read_at))
    }

    /// Ends it.
    pub async fn stop(self) -> Result<()> {
        self.stop.cancel();
        Ok(self.worker.await?)
    }
}

/// The real client; posts that arrive are counted.
#[derive(Debug)]
struct Counted {
    gateway: ApiGateway,
    left: AtomicUsize,
    all: Notify,
}

impl Gateway for Counted {
    fn post<'a>(&'a self, connection: &'a str, message: &'a Bytes) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move {
            let answer = self.gateway.post(connection, message).await;
            let arrived = matches!(answer, PostResponse::Status { status: 200, .. });
            if arrived && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                self.all.notify_one();
            }
            answer
        })
    }

    fn disconnect<'a>(&'a self, connection: &'a str) -> BoxFuture<'a, PostResponse> {
        Box::pin(async move { self.gateway.disconnect(connection).await })
    }
}
