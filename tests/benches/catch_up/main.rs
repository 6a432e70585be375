//! How fast a notifier reads what has accumulated, beside the SDK alone, and what a reader keeps in
//! memory beyond its pages. The service is another process, whose pages are made beforehand.

mod reading;
mod service;
#[path = "../support/mod.rs"]
mod support;

use std::env;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use stream_notifier::rules::EvaluatorPool;
use tokio::process::Command;
use tokio::time::Instant;

const RUNS: usize = 9;
const SHARDS: usize = 4;
const RECORDS: usize = 200_000;
/// One record in so many is delivered.
const DELIVERED: usize = 100;
/// Each has an item of its own.
const CONNECTIONS: usize = 20;

/// From so many shards to so many: what does not grow with the readers is not theirs.
const READERS: [usize; 2] = [4, 16];

#[tokio::main]
async fn main() -> Result<()> {
    if support::is_service() {
        return support::serve(service::routes()).await;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let [_, way, endpoint] = &*env::args().collect::<Vec<_>>() {
        println!("{}", peak(way, endpoint).await?);
        return Ok(());
    }
    let service = support::Service::start().await?;
    pace(&format!("{}/{SHARDS}/", service.endpoint)).await?;
    memory(&service.endpoint).await
}

async fn pace(endpoint: &str) -> Result<()> {
    let client = support::bare_client(endpoint);
    let evaluator = EvaluatorPool::on_threads(None)?;
    let bytes = service::BYTES;
    println!("{RECORDS} records of {bytes} bytes on {SHARDS} shards, one of {DELIVERED} delivered");
    let (mut alone, mut notifiers) = (vec![], vec![]);
    // The first of each makes the pages and opens the connections, and is not counted.
    for run in 0..=RUNS {
        let sdk = Run::of(reading::sdk(&client)).await?;
        let notifier = Run::of(reading::notifier(endpoint, &evaluator)).await?;
        if run > 0 {
            alone.push(sdk);
            notifiers.push(notifier);
        }
    }
    let (sdk, notifier) = (Run::least(&alone), Run::least(&notifiers));
    let (sdk, notifier) = (sdk.context("runs")?, notifier.context("runs")?);
    sdk.print("SDK alone");
    notifier.print("notifier");
    let ratio =
        |what: fn(&Run) -> Duration| what(&sdk).as_secs_f64() / what(&notifier).as_secs_f64();
    println!(
        "of the SDK's pace: {:.2}, by processor time {:.2}",
        ratio(|it| it.time),
        ratio(|it| it.cpu)
    );
    Ok(())
}

/// What one more reader takes, in a notifier and in a loop that reads the same pages with its client.
/// Each is a process of its own, since what one has freed stays with its process.
async fn memory(endpoint: &str) -> Result<()> {
    let mut readers = [0_usize; 2];
    for (way, reader) in ["client", "notifier"].into_iter().zip(&mut readers) {
        let mut peaks = [0_usize; 2];
        for (shards, peak) in READERS.into_iter().zip(&mut peaks) {
            let endpoint = format!("{endpoint}/{shards}/");
            let output = Command::new(env::current_exe()?).args([way, &endpoint]).output().await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            *peak = String::from_utf8(output.stdout)?.trim().parse()?;
        }
        let [few, many] = peaks;
        *reader = many.saturating_sub(few) / (READERS[1] - READERS[0]);
        println!(
            "{way:>10}: {} MiB with {} readers, {} MiB with {}, {} KiB each",
            few >> 20,
            READERS[0],
            many >> 20,
            READERS[1],
            *reader >> 10
        );
    }
    let [pages, reader] = readers;
    println!("a reader's memory beyond its pages: {} KiB", reader.saturating_sub(pages) >> 10);
    Ok(())
}

/// The most memory that this process holds while everything is read.
async fn peak(way: &str, endpoint: &str) -> Result<usize> {
    let evaluator = EvaluatorPool::on_threads(None)?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(match way {
            "client" => Run::of(reading::client(endpoint)).await?,
            _ => Run::of(reading::notifier(endpoint, &evaluator)).await?,
        });
    }
    let runs = runs.get(1..).and_then(Run::least).context("runs")?;
    Ok(runs.peak)
}

/// What reading everything took.
struct Run {
    time: Duration,
    cpu: Duration,
    /// The most memory that the process held meanwhile.
    peak: usize,
}

impl Run {
    async fn of(reading: impl Future<Output = Result<()>>) -> Result<Self> {
        support::forget_peak()?;
        let (begun, cpu) = (Instant::now(), support::cpu());
        reading.await?;
        let [_, peak] = support::memory()?;
        Ok(Self { time: begun.elapsed(), cpu: support::cpu() - cpu, peak })
    }

    /// The least of each: a machine that others use only ever adds to it.
    fn least(runs: &[Self]) -> Option<Self> {
        Some(Self {
            time: runs.iter().map(|run| run.time).min()?,
            cpu: runs.iter().map(|run| run.cpu).min()?,
            peak: runs.iter().map(|run| run.peak).min()?,
        })
    }

    fn print(&self, name: &str) {
        println!(
            "{name:>10}: {:.2} s, {:.0} records a second, processor {:.2} s",
            self.time.as_secs_f64(),
            RECORDS as f64 / self.time.as_secs_f64(),
            self.cpu.as_secs_f64(),
        );
    }
}
