//! The rate at which a notifier reads a backlog, and the memory of a shard reader besides its pages.
//!
//! The rate is compared with the SDK alone. The service is another process, which has created all pages
//! before the measurement.

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
/// One of this many records matches and is delivered.
const RECORDS_PER_MATCH: usize = 100;
/// Connections, each with an item of its own.
const CONNECTIONS: usize = 20;

/// Numbers of shards for the memory measurement. Only the growth between both is due to the readers.
const READERS: [usize; 2] = [4, 16];

#[tokio::main]
async fn main() -> Result<()> {
    if support::is_service() {
        return support::serve(service::routes()).await;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    if let [_, reader, endpoint] = &*env::args().collect::<Vec<_>>() {
        println!("{}", peak_memory(reader, endpoint).await?);
        return Ok(());
    }
    let service = support::Service::start().await?;
    measure_rate(&format!("{}/{SHARDS}/", service.endpoint)).await?;
    measure_memory(&service.endpoint).await
}

async fn measure_rate(endpoint: &str) -> Result<()> {
    let client = support::bare_client(endpoint);
    let evaluator = EvaluatorPool::on_threads(None)?;
    let bytes = service::BYTES;
    println!(
        "{RECORDS} records of {bytes} bytes on {SHARDS} shards, 1 of {RECORDS_PER_MATCH} delivered"
    );
    let (mut sdk_runs, mut notifier_runs) = (vec![], vec![]);
    // The first run creates the pages and opens the connections, so it does not count.
    for run in 0..=RUNS {
        let sdk = Run::of(reading::sdk(&client)).await?;
        let notifier = Run::of(reading::notifier(endpoint, &evaluator)).await?;
        if run > 0 {
            sdk_runs.push(sdk);
            notifier_runs.push(notifier);
        }
    }
    let (sdk, notifier) = (Run::minimum(&sdk_runs), Run::minimum(&notifier_runs));
    let (sdk, notifier) = (sdk.context("runs")?, notifier.context("runs")?);
    sdk.print("SDK alone");
    notifier.print("notifier");
    let ratio =
        |part: fn(&Run) -> Duration| part(&sdk).as_secs_f64() / part(&notifier).as_secs_f64();
    println!(
        "ratio of SDK to notifier: time {:.2}, CPU time {:.2}",
        ratio(|run| run.time),
        ratio(|run| run.cpu)
    );
    Ok(())
}

/// Measures the memory of one more reader: in a notifier, and in a loop that reads the same pages.
///
/// Each measurement is a process of its own, because a process keeps memory that it has freed.
async fn measure_memory(endpoint: &str) -> Result<()> {
    let mut per_reader = [0_usize; 2];
    for (reader, growth) in ["client", "notifier"].into_iter().zip(&mut per_reader) {
        let mut peaks = [0_usize; 2];
        for (shards, peak) in READERS.into_iter().zip(&mut peaks) {
            let endpoint = format!("{endpoint}/{shards}/");
            let output =
                Command::new(env::current_exe()?).args([reader, &endpoint]).output().await?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            *peak = String::from_utf8(output.stdout)?.trim().parse()?;
        }
        let [few, many] = peaks;
        *growth = many.saturating_sub(few) / (READERS[1] - READERS[0]);
        println!(
            "{reader:>10}: {} MiB with {} readers, {} MiB with {}, {} KiB each",
            few >> 20,
            READERS[0],
            many >> 20,
            READERS[1],
            *growth >> 10
        );
    }
    let [client, notifier] = per_reader;
    println!("memory of a reader besides its pages: {} KiB", notifier.saturating_sub(client) >> 10);
    Ok(())
}

/// The peak memory of this process while this reader reads all records.
async fn peak_memory(reader: &str, endpoint: &str) -> Result<usize> {
    let evaluator = EvaluatorPool::on_threads(None)?;
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(match reader {
            "client" => Run::of(reading::client(endpoint)).await?,
            _ => Run::of(reading::notifier(endpoint, &evaluator)).await?,
        });
    }
    let runs = runs.get(1..).and_then(Run::minimum).context("runs")?;
    Ok(runs.peak)
}

/// The cost of reading all records.
struct Run {
    time: Duration,
    cpu: Duration,
    /// The peak memory, in bytes.
    peak: usize,
}

impl Run {
    async fn of(reading: impl Future<Output = Result<()>>) -> Result<Self> {
        support::reset_peak_memory()?;
        let (start, cpu) = (Instant::now(), support::cpu_time());
        reading.await?;
        let [_, peak] = support::memory()?;
        Ok(Self { time: start.elapsed(), cpu: support::cpu_time() - cpu, peak })
    }

    /// The minimum of each part, because other load only increases it.
    fn minimum(runs: &[Self]) -> Option<Self> {
        Some(Self {
            time: runs.iter().map(|run| run.time).min()?,
            cpu: runs.iter().map(|run| run.cpu).min()?,
            peak: runs.iter().map(|run| run.peak).min()?,
        })
    }

    fn print(&self, name: &str) {
        println!(
            "{name:>10}: {:.2} s, {:.0} records per second, CPU time {:.2} s",
            self.time.as_secs_f64(),
            RECORDS as f64 / self.time.as_secs_f64(),
            self.cpu.as_secs_f64(),
        );
    }
}
