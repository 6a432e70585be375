//! Thousands of runs of the worker with simulated backends, each from one seed.
//!
//! `SEEDS=100000` sets the number of runs, and `FAILURES` the number of failures after which to stop (1 by
//! default). `SEED=7` runs only this seed and prints its events.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use stream_notifier_tests::simulator::{Report, replay, run_all};

/// The number of runs by default.
const SEEDS: u64 = 2_000;

fn number(name: &str) -> Option<u64> {
    let text = env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} must be a number, not {text}")))
}

#[test]
fn keeps_the_guarantees_in_every_run() {
    if let Some(seed) = number("SEED") {
        let (lines, violation) = replay(seed);
        println!("{}", lines.join("\n"));
        assert_eq!(violation, None, "seed {seed}");
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let max_failures = number("FAILURES").unwrap_or(1) as usize;
    let Report { seeds: done, took, counts, failures } = run_all(0..seeds, threads, max_failures);
    println!("{counts}");
    println!("{done} seeds in {took:.1?}, {:.0} per second", done as f64 / took.as_secs_f64());
    for failure in &failures {
        println!("seed {}: {}: {}", failure.seed, failure.guarantee, failure.details);
    }
    if let Some(failure) = failures.first() {
        panic!("{}", failure.report);
    }
    if seeds >= SEEDS {
        assert_eq!(
            counts.rarer_than(20 * seeds / SEEDS),
            [""; 0],
            "these events are too rare to be tested"
        );
    }
}

/// Compares text, because only a build with the feature `planted-faults` has the list.
#[test]
fn uses_exactly_the_listed_planted_faults() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../operator/src");
    let list = sources.join("planted_faults.rs");
    let text = fs::read_to_string(&list).unwrap();
    let (_, rest) = text.split_once("pub enum Fault {\n").unwrap();
    let (variants, _) = rest.split_once("\n}").unwrap();
    let variants = variants.lines().map(str::trim).filter(|line| !line.starts_with("///"));
    let listed: BTreeSet<String> =
        variants.map(|line| line.trim_end_matches(',').to_owned()).collect();
    assert!(listed.len() >= 39, "{listed:?}");

    let mut used = BTreeSet::new();
    for path in rust_files(&sources).into_iter().filter(|path| *path != list) {
        let text = fs::read_to_string(path).unwrap();
        let names = text.split("fault!(").skip(1).map(|rest| rest.split(')').next().unwrap());
        used.extend(names.map(str::to_owned));
    }
    assert_eq!(listed, used);
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}
