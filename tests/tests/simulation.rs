//! Thousands of runs of the worker among simulated neighbours, each from one seed.
//!
//! `SEEDS=100000` runs as many, until `FAILURES` (1) have failed; `SEED=7` runs that one and tells all
//! that happens in it.

use std::env;
use std::path::Path;

use stream_notifier_tests::mutation::all;
use stream_notifier_tests::simulation::{Report, replay, run_all};

/// How many are run unless told otherwise.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

#[test]
fn every_planted_fault_can_still_be_planted() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let mutations = all(root).unwrap();
    assert!(mutations.len() >= 10, "{}", mutations.len());
    for mutation in mutations {
        mutation.apply(root).unwrap();
    }
}

#[test]
fn the_guarantees_hold_whatever_happens() {
    if let Some(seed) = number("SEED") {
        let (lines, broken) = replay(seed);
        println!("{}", lines.join("\n"));
        assert_eq!(broken, None, "seed {seed}");
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let most_failures = number("FAILURES").unwrap_or(1) as usize;
    let Report { seeds: done, took, counts, failures } = run_all(0..seeds, threads, most_failures);
    println!("{counts}");
    println!("{done} seeds in {took:.1?}, {:.0} a second", done as f64 / took.as_secs_f64());
    for failure in &failures {
        println!("seed {}: {}: {}", failure.seed, failure.guarantee, failure.how);
    }
    if let Some(failure) = failures.first() {
        panic!("{}", failure.story);
    }
    if seeds >= SEEDS {
        assert_eq!(counts.rarer_than(20 * seeds / SEEDS), [""; 0], "this hardly ever happens");
    }
}
