//! `make faults`: runs the simulation with one planted fault after the other, until a seed fails. A
//! fault that survives is a gap in the checks.
//!
//! Each fault gets a process of its own, this program again, because `PLANTED_FAULT` is read once.

use std::env;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _, stdout};
use std::process::{Command, ExitCode, Stdio};
use std::thread::{available_parallelism, sleep};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Error, Result, bail};
use stream_notifier::planted_faults::Fault;
use stream_notifier_tests::simulator::run_all;

const MAX_SEEDS: u64 = 2_000;

/// A run that takes longer hangs, and its fault is detected.
const RUN_TIMEOUT: Duration = Duration::from_secs(900);

/// The argument with which this program starts itself.
const SIMULATE: &str = "--simulate";

/// The result of running the simulation with a planted fault.
enum FaultResult {
    Detected { seeds: u64, guarantee: String },
    TimedOut,
    Survived,
}

fn main() -> Result<ExitCode> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == SIMULATE) {
        simulate();
        return Ok(ExitCode::SUCCESS);
    }
    let named = arguments.iter().map(|name| Fault::parse(name).map_err(Error::msg));
    let named = named.collect::<Result<Vec<_>>>()?;
    let faults = if named.is_empty() { Fault::all() } else { &named };
    println!("{:<40} {:>5}  guarantee that failed", "fault", "seeds");
    let mut survivors = 0;
    for fault in faults {
        let (seeds, guarantee) = match run_with(*fault)? {
            FaultResult::Detected { seeds, guarantee } => (seeds.to_string(), guarantee),
            FaultResult::TimedOut => {
                ("-".to_owned(), format!("none, but not finished after {RUN_TIMEOUT:?}"))
            }
            FaultResult::Survived => {
                survivors += 1;
                (MAX_SEEDS.to_string(), format!("NONE: survived. {}", fault.description()))
            }
        };
        println!("{:<40} {seeds:>5}  {guarantee}", fault.name());
        stdout().flush()?;
    }
    println!("{} planted faults, {survivors} survived", faults.len());
    Ok(if survivors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs the simulation in this process, and prints the seed that failed, if any.
fn simulate() {
    let threads = available_parallelism().map_or(1, |threads| threads.get());
    let report = run_all(0..MAX_SEEDS, threads, 1);
    for failure in &report.failures {
        println!("seed {}: {}: {}", failure.seed, failure.guarantee, failure.details);
    }
    println!("{} seeds finished", report.seeds);
}

/// Runs the simulation with a planted fault in a process of its own.
fn run_with(fault: Fault) -> Result<FaultResult> {
    let mut output = tempfile::tempfile()?;
    let mut child = Command::new(env::current_exe()?)
        .arg(SIMULATE)
        .env("PLANTED_FAULT", fault.name())
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        .spawn()?;
    let started = Instant::now();
    while child.try_wait()?.is_none() {
        if started.elapsed() > RUN_TIMEOUT {
            child.kill()?;
            child.wait()?;
            return Ok(FaultResult::TimedOut);
        }
        sleep(Duration::from_millis(20));
    }
    parse_result(&read_all(&mut output)?).with_context(|| fault.name())
}

fn read_all(output: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    output.rewind()?;
    output.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Reads what [`simulate`] printed.
fn parse_result(output: &str) -> Result<FaultResult> {
    let failed = output.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(": "));
    match failed {
        Some((seed, failure)) => {
            let (guarantee, _) = failure.split_once(": ").unwrap_or((failure, ""));
            Ok(FaultResult::Detected {
                seeds: seed.parse::<u64>()? + 1,
                guarantee: guarantee.to_owned(),
            })
        }
        None if output.contains(" seeds finished") => Ok(FaultResult::Survived),
        None => bail!("the simulation did not finish:\n{output}"),
    }
}
