//! A thousand connections of one key under load. One is throttled, one hangs and one is closed, and the
//! others receive every message in time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::post;
use stream_notifier::aws::{ApiGateway, AwsConfig};
use stream_notifier::model::Position;
use stream_notifier::streams::InitialPosition;
use stream_notifier::telemetry::{Metrics, Phase};
use stream_notifier::worker::{Backends, run_worker};
use stream_notifier_tests::fakes::{
    FakeConnections, FakeStreams, MemoryStore, Post, metric_value, new_record, sequence_number,
    shard_id, worker_config,
};
use stream_notifier_tests::wait::eventually;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::support::{SHARD, start_default};

const CONNECTIONS: usize = 1_000;

/// The unresponsive connections.
const THROTTLED: usize = 17;
const HANGING: usize = 500;
const CLOSED: usize = 983;

/// The time from a record to its message at a responsive connection, at most.
const MAX_LATENCY: Duration = Duration::from_secs(2);

/// Ends a test that would never end.
const TEST_TIMEOUT: Duration = Duration::from_secs(300);

fn id(connection: usize) -> String {
    format!("L0SM9cOFvHcC{connection:03}=")
}

fn index(id: &str) -> usize {
    id.trim_start_matches("L0SM9cOFvHcC").trim_end_matches('=').parse().unwrap()
}

fn is_responsive(connection: usize) -> bool {
    ![THROTTLED, HANGING, CLOSED].contains(&connection)
}

/// The number of the record that a message is about.
fn record_number(message: &str) -> usize {
    let message: serde_json::Value = serde_json::from_str(message).unwrap();
    message["value"].as_str().unwrap().parse().unwrap()
}

/// How many of `records` records are settled in the stored checkpoint.
fn settled_records(store: &MemoryStore, records: usize) -> usize {
    let position =
        store.checkpoint().and_then(|stored| stored.shards.get(&shard_id(SHARD)).cloned());
    let is_at = |n: &usize| position == Some(Position::After(sequence_number(*n as u32)));
    (1..=records).rev().find(is_at).unwrap_or_default()
}

/// Records of several items, and what the responsive connections received of them.
#[derive(Debug)]
struct Load {
    appended_at: Vec<Instant>,
    /// The number of messages that each connection received.
    received: Vec<usize>,
}

impl Load {
    fn new() -> Self {
        Self { appended_at: vec![], received: vec![0; CONNECTIONS] }
    }

    fn append(&mut self, streams: &FakeStreams) {
        let n = self.appended_at.len() + 1;
        self.appended_at.push(Instant::now());
        streams.append(SHARD, new_record(n as u32, &format!("item-{}", n % 7), "hoge"));
    }

    /// Asserts that a message is the next one of its connection.
    fn check_order(&mut self, connection: usize, message: &str) -> usize {
        let record = record_number(message);
        self.received[connection] += 1;
        assert_eq!(record, self.received[connection], "connection {connection}: the next record");
        record
    }

    /// Asserts that a message is the next one of its connection, and not late.
    fn check_delivery(
        &mut self,
        connection: usize,
        message: &str,
        at: Instant,
        max_latency: Duration,
    ) {
        let record = self.check_order(connection, message);
        let latency = at.duration_since(self.appended_at[record - 1]);
        assert!(
            latency < max_latency,
            "connection {connection}: record {record} after {latency:?}"
        );
    }

    /// The responsive connections that lack a message.
    fn incomplete_connections(&self) -> Vec<usize> {
        let is_complete = |it: &usize| self.received[*it] == self.appended_at.len();
        (0..CONNECTIONS).filter(|it| is_responsive(*it) && !is_complete(it)).collect()
    }
}

fn connect(connections: &FakeConnections, indexes: impl IntoIterator<Item = usize>) {
    for connection in indexes {
        connections.put_new(&id(connection), "hoge");
    }
}

/// Half an hour with a record every four seconds, which a debug build can follow.
#[tokio::test(start_paused = true)]
async fn delivers_to_a_thousand_connections_despite_three_unresponsive_ones() {
    const MINUTES: usize = 30;
    /// The default of `maxRecordAgeSeconds`.
    const MAX_AGE_SECONDS: usize = 300;
    const INTERVAL_SECONDS: usize = 4;
    let worker = start_default().await;
    connect(&worker.connections, 0..CONNECTIONS);
    worker.gateway.set_default_response(20, 200);
    worker.gateway.script(&id(THROTTLED), &[(20, 429)]);
    worker.gateway.time_out(&id(HANGING));
    worker.gateway.script(&id(CLOSED), &[(20, 410)]);

    let mut load = Load::new();
    let mut attempts = vec![0; CONNECTIONS];
    for minute in 1..=MINUTES {
        for _ in 0..60 / INTERVAL_SECONDS {
            load.append(&worker.streams);
            worker.sleep_seconds(INTERVAL_SECONDS as u64).await;
        }
        for Post { connection, message, at, .. } in worker.gateway.take_posts() {
            let connection = index(&connection);
            attempts[connection] += 1;
            if is_responsive(connection) {
                load.check_delivery(connection, &message, at, MAX_LATENCY);
            }
        }
        // A record settles after the last attempt for its slowest connection.
        let records = load.appended_at.len();
        let lag = (records - settled_records(&worker.store, records)) * INTERVAL_SECONDS;
        assert!(
            lag <= MAX_AGE_SECONDS + 15 + 10,
            "minute {minute}: {lag} s of records are unsettled"
        );
        let queued = worker.metric_value("queued_messages", &[]) as usize;
        assert!(
            queued <= 2 * (MAX_AGE_SECONDS + 25) / INTERVAL_SECONDS + CONNECTIONS,
            "minute {minute}: {queued} messages are queued"
        );
        let bytes = worker.metric_value("queued_bytes", &[]) as usize;
        assert!(bytes <= queued * 1_024, "minute {minute}: {bytes} bytes in {queued} messages");
    }
    assert!(attempts[THROTTLED] > 100 && attempts[HANGING] > 30, "failed posts are retried");
    assert_eq!(attempts[CLOSED], 4);
    assert_eq!(
        worker.connections.stored().len(),
        CONNECTIONS - 1,
        "the row of the closed connection is deleted"
    );
    assert!(!worker.gateway.had_concurrent_posts());
    worker.sleep_seconds(2).await;
    for Post { connection, message, at, .. } in worker.gateway.take_posts() {
        let connection = index(&connection);
        if is_responsive(connection) {
            load.check_delivery(connection, &message, at, MAX_LATENCY);
        }
    }
    assert_eq!(load.incomplete_connections(), [0; 0]);
    assert_eq!(worker.problem_reasons(), [""; 0]);

    // Both respond again, and nothing stays queued.
    worker.gateway.script(&id(THROTTLED), &[(20, 200)]);
    worker.gateway.script(&id(HANGING), &[(20, 200)]);
    worker.wait_settled(SHARD, load.appended_at.len() as u32).await;
    assert_eq!(worker.metric_value("queued_messages", &[]), 0);
    assert_eq!(worker.metric_value("queued_bytes", &[]), 0);
}

/// An HTTP server that behaves as API Gateway does.
#[derive(Debug)]
struct HttpGateway {
    load: Mutex<Load>,
    /// The records that were posted to the hanging connection.
    hanging_posts: watch::Sender<Vec<usize>>,
    /// Whether the throttled and the hanging connection respond again.
    is_recovered: watch::Sender<bool>,
}

impl HttpGateway {
    async fn respond(&self, connection: usize, message: &str) -> StatusCode {
        match connection {
            THROTTLED if !*self.is_recovered.borrow() => StatusCode::TOO_MANY_REQUESTS,
            HANGING => {
                self.hanging_posts.send_modify(|posts| posts.push(record_number(message)));
                let mut is_recovered = self.is_recovered.subscribe();
                let waited = is_recovered.wait_for(|is_recovered| *is_recovered).await;
                waited.map_or(StatusCode::INTERNAL_SERVER_ERROR, |_| StatusCode::OK)
            }
            CLOSED => StatusCode::GONE,
            THROTTLED => StatusCode::OK,
            connection => {
                self.load.lock().unwrap().check_order(connection, message);
                StatusCode::OK
            }
        }
    }
}

async fn respond(
    State(gateway): State<Arc<HttpGateway>>,
    Path(id): Path<String>,
    message: String,
) -> StatusCode {
    gateway.respond(index(&id), &message).await
}

/// A worker with the real client, which posts to an [`HttpGateway`] over real sockets.
struct SocketWorker {
    gateway: Arc<HttpGateway>,
    streams: Arc<FakeStreams>,
    store: Arc<MemoryStore>,
    connections: Arc<FakeConnections>,
    metrics: Metrics,
    stop: CancellationToken,
    worker: JoinHandle<()>,
    server: JoinHandle<std::io::Result<()>>,
}

impl SocketWorker {
    async fn start(max_age: Duration, connected: impl IntoIterator<Item = usize>) -> Result<Self> {
        let gateway = Arc::new(HttpGateway {
            load: Mutex::new(Load::new()),
            hanging_posts: watch::Sender::default(),
            is_recovered: watch::Sender::new(false),
        });
        let routes = Router::new().route("/api/@connections/{id}", post(respond));
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = format!("http://{}/api", listener.local_addr()?);
        let serve = axum::serve(listener, routes.with_state(gateway.clone()));
        let server = tokio::spawn(async move { serve.await });

        let (streams, store) = (Arc::new(FakeStreams::new(1_000)), Arc::<MemoryStore>::default());
        streams.open(SHARD, None);
        let connections = Arc::new(FakeConnections::new(1_000));
        connect(&connections, connected);
        let aws = AwsConfig::local("http://127.0.0.1:9").await;
        let backends = Backends {
            streams: streams.clone(),
            connections: connections.clone(),
            gateway: Arc::new(ApiGateway::new(&aws, "eu-west-1", &endpoint)),
            checkpoints: store.clone(),
            dead_letters: None,
        };
        let (stop, metrics) = (CancellationToken::new(), Metrics::default());
        let (mut config, mut health) = worker_config("holder", InitialPosition::Latest, &metrics);
        config.delivery.policy.max_age = max_age;
        config.consumer.poll_interval = Duration::from_millis(250);
        let stopped = stop.clone();
        let worker = tokio::spawn(async move {
            run_worker(&backends, &config, &stopped).await;
        });
        health.wait_for(|health| health.phase == Phase::Reading).await?;
        Ok(Self { gateway, streams, store, connections, metrics, stop, worker, server })
    }

    fn append(&self) {
        self.gateway.load.lock().unwrap().append(&self.streams);
    }

    async fn wait_settled(&self, records: usize) -> Result<()> {
        eventually(TEST_TIMEOUT, format!("{records} records to settle"), async || {
            let settled = settled_records(&self.store, records);
            (settled == records).then_some(()).with_context(|| format!("{settled} of {records}"))
        })
        .await
    }

    fn expired(&self) -> u64 {
        metric_value(&self.metrics, "messages_total", &[("outcome", "expired")])
    }

    async fn stop(self) -> Result<()> {
        self.stop.cancel();
        self.worker.await?;
        self.server.abort();
        Ok(())
    }
}

/// Every wait has a condition, and no assertion depends on elapsed time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn delivers_over_real_sockets_despite_three_unresponsive_connections() -> Result<()> {
    const RECORDS: usize = 10;
    // No message expires while the test runs, so that only a response settles a record.
    let worker = SocketWorker::start(Duration::from_secs(24 * 3600), 0..CONNECTIONS).await?;
    for n in 1..=RECORDS {
        worker.append();
        eventually(TEST_TIMEOUT, format!("record {n} at connection 0"), async || {
            let received = worker.gateway.load.lock().unwrap().received[0];
            (received == n).then_some(()).with_context(|| format!("{received} of {n}"))
        })
        .await?;
    }
    eventually(TEST_TIMEOUT, "all records at the responsive connections", async || {
        let incomplete = worker.gateway.load.lock().unwrap().incomplete_connections();
        incomplete.is_empty().then_some(()).with_context(|| format!("{incomplete:?} lack records"))
    })
    .await?;
    assert_eq!(settled_records(&worker.store, RECORDS), 0, "two connections lack the first record");
    // The second post shows that the client's timeout ended the first one.
    let mut hanging_posts = worker.gateway.hanging_posts.subscribe();
    let posts = timeout(TEST_TIMEOUT, hanging_posts.wait_for(|posts| posts.len() >= 2)).await??;
    assert_eq!(*posts, [1, 1], "the first record is retried");
    drop(posts);
    worker.gateway.is_recovered.send_replace(true);
    worker.wait_settled(RECORDS).await?;
    assert_eq!(worker.connections.stored().len(), CONNECTIONS - 1);
    assert_eq!(worker.expired(), 0);
    worker.stop().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn drops_expired_messages_of_unresponsive_connections_over_real_sockets() -> Result<()> {
    let connected = [0, THROTTLED, HANGING];
    let worker = SocketWorker::start(Duration::from_secs(5), connected).await?;
    worker.append();
    worker.wait_settled(1).await?;
    assert_eq!(worker.expired(), 2, "the throttled and the hanging connection");
    assert_eq!(worker.gateway.load.lock().unwrap().received[0], 1);
    worker.stop().await
}
