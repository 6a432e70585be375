//! A thousand connections of one key, under load, three of which do not take what they get: one
//! whose buffer is full, one that hangs, one that is gone. The others do not notice.

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
use stream_notifier::telemetry::Metrics;
use stream_notifier::worker::{Backends, run_worker};
use stream_notifier_tests::fakes::{
    FakeConnections, FakeStreams, MemoryStore, Post, Worker, change, job, number, shard_id,
};
use stream_notifier_tests::wait::eventually;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 1_000;

/// The three that do not take what they get.
const THROTTLED: usize = 17;
const HANGING: usize = 500;
const GONE: usize = 983;

fn id(connection: usize) -> String {
    format!("L0SM9cOFvHcC{connection:03}=")
}

fn index(id: &str) -> usize {
    id.trim_start_matches("L0SM9cOFvHcC").trim_end_matches('=').parse().unwrap()
}

fn is_well(connection: usize) -> bool {
    ![THROTTLED, HANGING, GONE].contains(&connection)
}

/// The change that a message tells of.
fn value(message: &str) -> usize {
    let message: serde_json::Value = serde_json::from_str(message).unwrap();
    message["value"].as_str().unwrap().parse().unwrap()
}

/// Which of so many changes the checkpoint remembers as settled.
fn settled(store: &MemoryStore, changes: usize) -> usize {
    let checkpoint = store.checkpoint();
    let position = checkpoint.and_then(|it| it.shards.get(&shard_id("only")).cloned());
    let is_it = |n: &usize| position == Some(Position::After(number(*n as u32)));
    (1..=changes).rev().find(is_it).unwrap_or_default()
}

/// The value of a metric that a notifier has one of.
fn gauge(metrics: &Metrics, name: &str) -> usize {
    let (text, begin) = (metrics.encode(), format!("stream_notifier_{name}{{"));
    let line = text.lines().find(|line| line.starts_with(&begin)).unwrap();
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// Changes of several items, and what those connections have of them that are well.
#[derive(Debug)]
struct Load {
    changed_at: Vec<Instant>,
    /// How many changes each connection was told of.
    told: Vec<usize>,
}

impl Load {
    fn new() -> Self {
        Self { changed_at: vec![], told: vec![0; CONNECTIONS] }
    }

    fn change(&mut self, streams: &FakeStreams) {
        let n = self.changed_at.len() + 1;
        self.changed_at.push(Instant::now());
        streams.append("only", change(n as u32, &format!("item-{}", n % 7), "hoge"));
    }

    /// What was delivered is in order, nothing is left out, and none is late.
    fn delivered(&mut self, connection: usize, message: &str, at: Instant, limit: Duration) {
        let change = value(message);
        self.told[connection] += 1;
        assert_eq!(change, self.told[connection], "connection {connection}: the next one");
        let late = at.duration_since(self.changed_at[change - 1]);
        assert!(late < limit, "connection {connection}: change {change} after {late:?}");
    }

    /// Those connections that have not had every change.
    fn left_behind(&self) -> Vec<usize> {
        let has_all = |it: &usize| self.told[*it] == self.changed_at.len();
        (0..CONNECTIONS).filter(|it| is_well(*it) && !has_all(it)).collect()
    }
}

fn connect(connections: &FakeConnections) {
    for connection in 0..CONNECTIONS {
        connections.put_new(&id(connection), "hoge");
    }
}

/// Half an hour of it, a change every four seconds: what a debug build can follow.
#[tokio::test(start_paused = true)]
async fn a_thousand_do_not_notice_the_three_that_take_nothing() {
    const MINUTES: usize = 30;
    const LONGEST_TRY: usize = 300;
    const EVERY: usize = 4;
    let mut worker = Worker::new();
    worker.streams.open("only", None);
    connect(&worker.connections);
    worker.gateway.everyone(20, 200);
    worker.gateway.script(&id(THROTTLED), &[(20, 429)]);
    worker.gateway.hang(&id(HANGING));
    worker.gateway.script(&id(GONE), &[(20, 410)]);
    worker.start("a", InitialPosition::Latest);
    worker.started().await;

    let mut load = Load::new();
    let mut tried = vec![0; CONNECTIONS];
    for minute in 1..=MINUTES {
        for _ in 0..60 / EVERY {
            load.change(&worker.streams);
            worker.after(EVERY as u64).await;
        }
        for Post { connection, message, at, .. } in worker.gateway.take_posts() {
            let connection = index(&connection);
            tried[connection] += 1;
            if is_well(connection) {
                load.delivered(connection, &message, at, Duration::from_secs(2));
            }
        }
        // A record waits for its last connection, as long as that is tried and a try lasts.
        let changes = load.changed_at.len();
        let lag = (changes - settled(&worker.store, changes)) * EVERY;
        assert!(
            lag <= LONGEST_TRY + 15 + 10,
            "minute {minute}: {lag} s of records are not settled"
        );
        let waiting = gauge(&worker.metrics, "queued_messages");
        assert!(
            waiting <= 2 * (LONGEST_TRY + 25) / EVERY + CONNECTIONS,
            "minute {minute}: {waiting} wait"
        );
        let bytes = gauge(&worker.metrics, "queued_bytes");
        assert!(bytes <= waiting * 1_024, "minute {minute}: {bytes} bytes of {waiting}");
    }
    assert!(tried[THROTTLED] > 100 && tried[HANGING] > 30, "they were tried again and again");
    assert_eq!(tried[GONE], 4);
    assert_eq!(worker.connections.stored().len(), CONNECTIONS - 1, "the row of the one goes");
    assert!(!worker.gateway.two_for_one());
    worker.after(2).await;
    for Post { connection, message, at, .. } in worker.gateway.take_posts() {
        let connection = index(&connection);
        if is_well(connection) {
            load.delivered(connection, &message, at, Duration::from_secs(2));
        }
    }
    assert_eq!(load.left_behind(), [0; 0]);
    assert!(worker.reasons().is_empty(), "{:?}", worker.reasons());

    // They read again: nothing is left over.
    worker.gateway.script(&id(THROTTLED), &[(20, 200)]);
    worker.gateway.script(&id(HANGING), &[(20, 200)]);
    let changes = load.changed_at.len();
    worker.until("all is settled", || settled(&worker.store, changes) == changes).await;
    assert_eq!(gauge(&worker.metrics, "queued_messages"), 0);
    assert_eq!(gauge(&worker.metrics, "queued_bytes"), 0);
}

type Shared = Arc<Mutex<Load>>;

/// As API Gateway answers, after a while.
async fn answer(
    State(load): State<Shared>,
    Path(connection): Path<String>,
    body: String,
) -> StatusCode {
    match index(&connection) {
        THROTTLED => StatusCode::TOO_MANY_REQUESTS,
        HANGING => std::future::pending().await,
        GONE => StatusCode::GONE,
        connection => {
            sleep(Duration::from_millis(5)).await;
            let limit = Duration::from_secs(20);
            load.lock().unwrap().delivered(connection, &body, Instant::now(), limit);
            StatusCode::OK
        }
    }
}

/// The same over real sockets, with the real client and its own limit for an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_do_not_notice_them_over_real_sockets_either() -> Result<()> {
    const CHANGES: usize = 10;
    const LIMIT: Duration = Duration::from_secs(60);
    let load = Shared::new(Mutex::new(Load::new()));
    let routes = Router::new().route("/api/@connections/{id}", post(answer));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}/api", listener.local_addr()?);
    let serve = axum::serve(listener, routes.with_state(load.clone()));
    let server = tokio::spawn(async move { serve.await });

    let (streams, store) = (Arc::new(FakeStreams::new(1_000)), Arc::<MemoryStore>::default());
    streams.open("only", None);
    let connections = Arc::new(FakeConnections::new(1_000));
    connect(&connections);
    let aws = AwsConfig::local("http://127.0.0.1:9").await;
    let backends = Backends {
        streams: streams.clone(),
        connections: connections.clone(),
        gateway: Arc::new(ApiGateway::new(&aws, "eu-west-1", &endpoint)),
        checkpoints: store.clone(),
        dead_letters: None,
    };
    let (stop, metrics) = (CancellationToken::new(), Metrics::default());
    let told = stop.clone();
    let (mut job, mut pictures) = job("holder", InitialPosition::Latest, &metrics);
    job.delivery.policy.max_age = Duration::from_secs(10);
    job.consumer.poll_interval = Duration::from_millis(250);
    let worker = tokio::spawn(async move {
        run_worker(&backends, &job, &told).await;
    });
    pictures.wait_for(|it| it.phase == stream_notifier::telemetry::Phase::Reading).await?;

    for n in 1..=CHANGES {
        load.lock().unwrap().change(&streams);
        eventually(LIMIT, "it is read", async || {
            let left = load.lock().unwrap().told[0];
            (left == n).then_some(()).with_context(|| format!("{left} of {n}"))
        })
        .await?;
    }
    eventually(LIMIT, "all others are told", async || {
        let left = load.lock().unwrap().left_behind();
        left.is_empty().then_some(()).with_context(|| format!("{left:?} are not"))
    })
    .await?;
    assert!(settled(&store, CHANGES) < CHANGES, "one hangs yet");
    eventually(LIMIT, "all is settled", async || {
        let settled = settled(&store, CHANGES);
        (settled == CHANGES).then_some(()).with_context(|| format!("{settled} are"))
    })
    .await?;
    assert_eq!(connections.stored().len(), CONNECTIONS - 1);
    stop.cancel();
    worker.await?;
    server.abort();
    Ok(())
}
