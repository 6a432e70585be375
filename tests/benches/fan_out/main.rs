//! How long one change takes to reach every connection of its key, and what of the processor: a whole
//! notifier beside the origin's loop, the SDK's client alone and hyper's. All post to the same
//! gateway, another process, and take turns, so that a busy machine is as busy for all.

mod clients;
mod gateway;
mod notifier;
mod origin;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use anyhow::{Context as _, Result};
use clients::{Hyper, Post, Sdk, post_to_all};
use notifier::Notifier;
use tokio::time::Instant;

/// Each after a first one that opens the connections and is not counted.
const RUNS: usize = 7;
/// Connections, milliseconds that the gateway takes to answer, and changes that the origin's loop is
/// given, which takes minutes for some.
const ROWS: [(usize, u64, usize); 4] =
    [(1_000, 10, 3), (1_000, 0, RUNS), (10_000, 10, 1), (10_000, 0, 2)];
/// Posts of a bare client under way at once: its best is looked for.
const AT_ONCE: [usize; 5] = [64, 128, 256, 512, 1024];
/// Posts a second: so many that they are no limit, and what the operator's flag is by default.
const UNLIMITED: u32 = 1_000_000;
const BY_DEFAULT: u32 = 5_000;
/// So many connections are stored for the row about memory.
const MANY: usize = 100_000;

#[tokio::main]
async fn main() -> Result<()> {
    if support::is_service() {
        return gateway::serve().await;
    }
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    // First of all: it takes a while where it is missing, and nothing is measured without it.
    origin::python().await?;
    let service = support::Service::start().await?;
    memory(&service.endpoint).await?;
    println!("one change to every connection of its key, median of {RUNS} runs");
    for (connections, answer, origin_runs) in ROWS {
        row(&service.endpoint, connections, answer, origin_runs).await?;
    }
    Ok(())
}

/// What one change took.
#[derive(Clone, Copy)]
struct Taken {
    /// From the beginning to the last answer.
    time: Duration,
    /// Of the processor, by the client's process.
    cpu: Duration,
}

impl Taken {
    /// The median of each.
    fn median(of: &[Self]) -> Result<Self> {
        let median = |what: fn(&Self) -> Duration| {
            let mut all: Vec<_> = of.iter().map(what).collect();
            all.sort();
            all.get(all.len() / 2).copied()
        };
        let medians = median(|it| it.time).zip(median(|it| it.cpu));
        let (time, cpu) = medians.context("there were runs")?;
        Ok(Self { time, cpu })
    }
}

async fn row(service: &str, connections: usize, answer: u64, origin_runs: usize) -> Result<()> {
    let endpoint = format!("{service}/{answer}");
    let (sdk, hyper) = (Sdk::new(&endpoint), Hyper::new(&endpoint));
    let mut notifier = Notifier::start(&endpoint, connections, UNLIMITED).await;
    let mut limited = Notifier::start(&endpoint, connections, BY_DEFAULT).await;
    let (mut of_notifier, mut of_limited) = (Vec::new(), Vec::new());
    let (mut of_sdk, mut of_hyper) =
        ([(); AT_ONCE.len()].map(|()| vec![]), [(); AT_ONCE.len()].map(|()| vec![]));
    for run in 0..=RUNS {
        for (notifier, taken) in
            [(&mut notifier, &mut of_notifier), (&mut limited, &mut of_limited)]
        {
            let cpu = support::cpu();
            let time = notifier.change().await?;
            if run > 0 {
                taken.push(Taken { time, cpu: support::cpu() - cpu });
            }
        }
        for (n, at_once) in AT_ONCE.into_iter().enumerate() {
            let (sdk, hyper) = (
                bare(&sdk, connections, at_once).await?,
                bare(&hyper, connections, at_once).await?,
            );
            if run > 0 {
                of_sdk[n].push(sdk);
                of_hyper[n].push(hyper);
            }
        }
    }
    notifier.stop().await?;
    limited.stop().await?;
    let of_origin = origin::changes(service, answer, connections, origin_runs).await?;

    println!("{connections} connections, answered after {answer} ms");
    let notifier = Taken::median(&of_notifier)?;
    let print = |name: String, taken: Taken| {
        println!(
            "{name:>24}: {:>9.1} ms, processor {:>6.1} ms for 1,000 posts, {:>6.2} times the notifier's time",
            taken.time.as_secs_f64() * 1e3,
            taken.cpu.as_secs_f64() * 1e6 / connections as f64,
            taken.time.as_secs_f64() / notifier.time.as_secs_f64(),
        );
    };
    print("notifier".to_owned(), notifier);
    print(format!("at {BY_DEFAULT} a second"), Taken::median(&of_limited)?);
    print("origin's loop".to_owned(), Taken::median(&of_origin)?);
    for (name, all) in [("SDK", of_sdk), ("hyper", of_hyper)] {
        for (at_once, taken) in AT_ONCE.into_iter().zip(all) {
            print(format!("{name}, {at_once} at once"), Taken::median(&taken)?);
        }
    }
    Ok(())
}

async fn bare(client: &impl Post, connections: usize, at_once: usize) -> Result<Taken> {
    let (begun, cpu) = (Instant::now(), support::cpu());
    post_to_all(client, connections, at_once).await?;
    Ok(Taken { time: begun.elapsed(), cpu: support::cpu() - cpu })
}

/// What a change to very many connections takes of the memory. The table is in this process too, and
/// is there before.
async fn memory(service: &str) -> Result<()> {
    let mut notifier = Notifier::start(&format!("{service}/0"), MANY, UNLIMITED).await;
    support::forget_peak()?;
    let [before, _] = support::memory()?;
    notifier.change().await?;
    let [_, peak] = support::memory()?;
    notifier.stop().await?;
    println!(
        "{MANY} connections stored: one change to all takes {} MiB at the most, beside {} MiB before, the table among them",
        (peak - before) >> 20,
        before >> 20,
    );
    Ok(())
}
