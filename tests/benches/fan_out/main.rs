//! The time and CPU time until one change has reached every connection of its key.
//!
//! A complete notifier is compared with the original loop, the SDK's client and hyper's client. All post to
//! the same gateway in another process. They run alternately, so that all see the same load of the machine.

mod clients;
mod gateway;
mod notifier;
mod original_loop;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use anyhow::{Context as _, Result};
use clients::{Hyper, Post, Sdk, post_to_all};
use notifier::Notifier;
use tokio::time::Instant;

/// Runs of each, after a first one that opens the connections and does not count.
const RUNS: usize = 7;
/// Connections, delay of each response in milliseconds, and runs of the original loop, of which some take
/// minutes.
const ROWS: [(usize, u64, usize); 4] =
    [(1_000, 10, 3), (1_000, 0, RUNS), (10_000, 10, 1), (10_000, 0, 2)];
/// Posts in flight of a bare client. The best result counts.
const IN_FLIGHT: [usize; 5] = [64, 128, 256, 512, 1024];
/// A rate limit, in posts per second, that no run reaches.
const UNLIMITED: u32 = 1_000_000;
/// The default of `--posts-per-second`.
const DEFAULT_RATE: u32 = 5_000;
/// Stored connections in the memory measurement.
const MEMORY_CONNECTIONS: usize = 100_000;

#[tokio::main]
async fn main() -> Result<()> {
    if support::is_service() {
        return gateway::serve().await;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // Checked first, because an installation takes long, and no measurement is useful without it.
    original_loop::python().await?;
    let service = support::Service::start().await?;
    measure_memory(&service.endpoint).await?;
    println!("one change to every connection of its key, median of {RUNS} runs");
    for (connections, delay_ms, loop_runs) in ROWS {
        measure_row(&service.endpoint, connections, delay_ms, loop_runs).await?;
    }
    Ok(())
}

/// The cost of one change.
#[derive(Clone, Copy)]
struct Cost {
    /// Until the last response.
    time: Duration,
    /// CPU time of the client's process.
    cpu: Duration,
}

impl Cost {
    /// The median of each part.
    fn median(costs: &[Self]) -> Result<Self> {
        let median = |part: fn(&Self) -> Duration| {
            let mut parts: Vec<_> = costs.iter().map(part).collect();
            parts.sort();
            parts.get(parts.len() / 2).copied()
        };
        let medians = median(|cost| cost.time).zip(median(|cost| cost.cpu));
        let (time, cpu) = medians.context("runs")?;
        Ok(Self { time, cpu })
    }
}

async fn measure_row(
    service: &str,
    connections: usize,
    delay_ms: u64,
    loop_runs: usize,
) -> Result<()> {
    let endpoint = format!("{service}/{delay_ms}");
    let (sdk, hyper) = (Sdk::new(&endpoint), Hyper::new(&endpoint));
    let mut notifier = Notifier::start(&endpoint, connections, UNLIMITED).await;
    let mut limited = Notifier::start(&endpoint, connections, DEFAULT_RATE).await;
    let (mut notifier_costs, mut limited_costs) = (Vec::new(), Vec::new());
    let (mut sdk_costs, mut hyper_costs) =
        ([(); IN_FLIGHT.len()].map(|()| vec![]), [(); IN_FLIGHT.len()].map(|()| vec![]));
    for run in 0..=RUNS {
        for (notifier, costs) in
            [(&mut notifier, &mut notifier_costs), (&mut limited, &mut limited_costs)]
        {
            let cpu = support::cpu_time();
            let time = notifier.change_item().await?;
            if run > 0 {
                costs.push(Cost { time, cpu: support::cpu_time() - cpu });
            }
        }
        for (n, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            let (sdk, hyper) = (
                measure_client(&sdk, connections, in_flight).await?,
                measure_client(&hyper, connections, in_flight).await?,
            );
            if run > 0 {
                sdk_costs[n].push(sdk);
                hyper_costs[n].push(hyper);
            }
        }
    }
    notifier.stop().await?;
    limited.stop().await?;
    let loop_costs = original_loop::measure(service, delay_ms, connections, loop_runs).await?;

    println!("{connections} connections, response after {delay_ms} ms");
    let notifier = Cost::median(&notifier_costs)?;
    let print = |name: String, cost: Cost| {
        println!(
            "{name:>24}: {:>9.1} ms, CPU time {:>6.1} ms per 1,000 posts, {:>6.2} times the notifier's time",
            cost.time.as_secs_f64() * 1e3,
            cost.cpu.as_secs_f64() * 1e6 / connections as f64,
            cost.time.as_secs_f64() / notifier.time.as_secs_f64(),
        );
    };
    print("notifier".to_owned(), notifier);
    print(format!("at {DEFAULT_RATE} per second"), Cost::median(&limited_costs)?);
    print("original loop".to_owned(), Cost::median(&loop_costs)?);
    for (name, costs) in [("SDK", sdk_costs), ("hyper", hyper_costs)] {
        for (in_flight, costs) in IN_FLIGHT.into_iter().zip(costs) {
            print(format!("{name}, {in_flight} in flight"), Cost::median(&costs)?);
        }
    }
    Ok(())
}

async fn measure_client(client: &impl Post, connections: usize, in_flight: usize) -> Result<Cost> {
    let (start, cpu) = (Instant::now(), support::cpu_time());
    post_to_all(client, connections, in_flight).await?;
    Ok(Cost { time: start.elapsed(), cpu: support::cpu_time() - cpu })
}

/// Measures the memory of one change to all stored connections. The connections table is in this process
/// too, but exists before the measurement.
async fn measure_memory(service: &str) -> Result<()> {
    let mut notifier =
        Notifier::start(&format!("{service}/0"), MEMORY_CONNECTIONS, UNLIMITED).await;
    support::reset_peak_memory()?;
    let [before, _] = support::memory()?;
    notifier.change_item().await?;
    let [_, peak] = support::memory()?;
    notifier.stop().await?;
    println!(
        "{MEMORY_CONNECTIONS} stored connections: one change to all takes at most {} MiB, besides {} MiB before, which include the table",
        (peak - before) >> 20,
        before >> 20,
    );
    Ok(())
}
