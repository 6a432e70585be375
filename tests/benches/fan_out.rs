//! How long one change takes to reach every connection of its key: a real worker with the real API
//! Gateway client, against a gateway on this machine that answers each post after a while.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use axum::extract::State;
use axum::routing::post;
use stream_notifier::aws::{ApiGateway, Aws};
use stream_notifier::telemetry::Metrics;
use stream_notifier::worker::Begin;
use stream_notifier::worker::{Neighbours, work};
use stream_notifier_tests::scripted::{
    MemoryStore, ScriptedConnections, ScriptedStreams, change, job,
};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

const RUNS: u32 = 15;
const LIMIT: Duration = Duration::from_secs(30);

/// A gateway that counts its answers.
#[derive(Debug, Default)]
struct Counted {
    answered: AtomicUsize,
    expected: AtomicUsize,
    all: Notify,
}

#[tokio::main]
async fn main() -> Result<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    println!("one change to every connection of its key, from read to last answer, {RUNS} runs");
    println!("{:>12} {:>10} {:>10} {:>10} {:>10}", "connections", "answer", "min", "median", "max");
    for (connections, answer) in [(1_000, 10), (1_000, 0), (10_000, 10)] {
        let times = measure(connections, Duration::from_millis(answer)).await?;
        let ms = |time: Duration| format!("{:.0} ms", time.as_secs_f64() * 1e3);
        let (min, median, max) = (times[0], times[times.len() / 2], times[times.len() - 1]);
        println!(
            "{connections:>12} {:>10} {:>10} {:>10} {:>10}",
            format!("{answer} ms"),
            ms(min),
            ms(median),
            ms(max)
        );
    }
    Ok(())
}

/// The times of all runs, shortest first.
async fn measure(connections: usize, answer: Duration) -> Result<Vec<Duration>> {
    let counted = Arc::new(Counted::default());
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let endpoint = format!("http://{}/api", listener.local_addr()?);
    let routes = Router::new().route(
        "/api/@connections/{id}",
        post(async move |State(counted): State<Arc<Counted>>| {
            sleep(answer).await;
            let answered = counted.answered.fetch_add(1, Ordering::Relaxed) + 1;
            if answered == counted.expected.load(Ordering::Relaxed) {
                counted.all.notify_one();
            }
        }),
    );
    let serve = axum::serve(listener, routes.with_state(counted.clone()));
    let server = tokio::spawn(async move { serve.await });

    let streams = Arc::new(ScriptedStreams::new(1_000));
    streams.open("only", None);
    let table = ScriptedConnections::new(1_000);
    for n in 0..connections {
        table.put_new(&format!("L0SM9cOFvHcC{n:05}="), "hoge");
    }
    let aws = Aws::local("http://127.0.0.1:9").await;
    let neighbours = Neighbours {
        streams: streams.clone(),
        connections: Arc::new(table),
        gateway: Arc::new(ApiGateway::new(&aws, "eu-west-1", &endpoint)),
        store: Arc::new(MemoryStore::default()),
    };
    let stop = CancellationToken::new();
    let told = stop.clone();
    let (job, _) = job("bench", Begin::Latest, &Metrics::default());
    let worker = tokio::spawn(async move { work(&neighbours, &job, &told).await });

    let mut times = Vec::new();
    // The first run opens the HTTP connections and is not counted.
    for run in 0..=RUNS {
        let answered = counted.answered.load(Ordering::Relaxed);
        counted.expected.store(answered + connections, Ordering::Relaxed);
        streams.append("only", change(run + 1, "fuga", "hoge"));
        timeout(LIMIT, counted.all.notified()).await.context("not everybody was told")?;
        let read_at = streams.read_at().context("it was read")?;
        if run > 0 {
            times.push(Instant::now().duration_since(read_at));
        }
    }
    stop.cancel();
    worker.await?;
    server.abort();
    ensure!(counted.answered.load(Ordering::Relaxed) == connections * (RUNS as usize + 1));
    times.sort();
    Ok(times)
}
