//! Runs seeds in parallel, each on a paused clock of its own.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::runtime::Builder;

use super::config::ScenarioConfig;
use super::counts::Counts;
use super::log_capture::LogCapture;
use super::scenario::Scenario;
use super::trace::Trace;
use super::world::{Violation, World};

/// Every seed divisible by this runs twice, and both runs must be equal.
const REPEAT_EVERY: u64 = 50;

/// Trace lines that are reported for a failed seed.
const MAX_TRACE_LINES: usize = 60;

#[derive(Debug)]
struct Outcome {
    violation: Option<Violation>,
    counts: Counts,
    lines: Vec<String>,
}

/// A seed that violated a guarantee.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub seed: u64,
    pub guarantee: &'static str,
    pub details: String,
    /// The end of the trace, and the command that replays the run.
    pub report: String,
}

/// The result of many runs.
#[derive(Debug)]
pub struct Report {
    /// Finished runs.
    pub seeds: u64,
    pub took: Duration,
    pub counts: Counts,
    pub failures: Vec<Failure>,
}

fn run(seed: u64, capture: &LogCapture, is_traced: bool) -> Outcome {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("the runtime must build");
    let (world, ended) = runtime.block_on(async {
        let mut rng = Rng::with_seed(seed);
        let config = ScenarioConfig::draw(&mut rng);
        let world = Arc::new(World::new(&config, &mut rng, Trace::new(is_traced)));
        world.trace_line(|| format!("{config:#?}"));
        capture.set_world(Some(world.clone()));
        let mut scenario = Scenario::new(world.clone(), config, rng);
        let ended = async {
            scenario.run_steps().await?;
            if scenario.has_violation() { Ok(()) } else { scenario.check_liveness().await }
        };
        (world, ended.await)
    });
    capture.set_world(None);
    // Drops all tasks, so that no other task locks the world.
    drop(runtime);
    world.with(|model, state| {
        if let Err(panicked) = ended {
            state.report_violation(model, "no panic", panicked);
        }
        let mut counts = std::mem::take(&mut state.counts);
        counts.merge(model.counts());
        let lines = std::mem::replace(&mut state.trace, Trace::new(false)).into_lines();
        Outcome { violation: state.violation.take(), counts, lines }
    })
}

/// Runs a seed and returns its whole trace, and the guarantee that it violated.
pub fn replay(seed: u64) -> (Vec<String>, Option<String>) {
    check_planted_fault();
    let Outcome { violation, lines, .. } = run(seed, &LogCapture::start(), true);
    (lines, violation.map(|Violation { guarantee, details }| format!("{guarantee}: {details}")))
}

/// Runs these seeds until `max_failures` have failed.
pub fn run_all(seeds: Range<u64>, threads: usize, max_failures: usize) -> Report {
    check_planted_fault();
    let started = Instant::now();
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicUsize::new(0));
    let work = || {
        let capture = LogCapture::start();
        let (mut done, mut counts, mut failures) = (0, Counts::default(), vec![]);
        while failed.load(Ordering::Relaxed) < max_failures {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            done += 1;
            if let Some(failure) = check_seed(seed, &capture, &mut counts) {
                failed.fetch_add(1, Ordering::Relaxed);
                failures.push(failure);
            }
        }
        (done, counts, failures)
    };
    let done: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads.into_iter().map(|thread| thread.join().expect("a run panicked")).collect()
    });
    let mut report =
        Report { seeds: 0, took: started.elapsed(), counts: Counts::default(), failures: vec![] };
    for (seeds, counts, failures) in done {
        report.seeds += seeds;
        report.counts.merge(counts.iter());
        report.failures.extend(failures);
    }
    report.failures.sort_by_key(|failure| failure.seed);
    report
}

/// Panics here, and not in a worker task, if `PLANTED_FAULT` names no planted fault.
fn check_planted_fault() {
    #[cfg(feature = "planted-faults")]
    stream_notifier::planted_faults::Fault::selected();
}

/// Runs a seed, and again if it failed or if it must be compared.
fn check_seed(seed: u64, capture: &LogCapture, counts: &mut Counts) -> Option<Failure> {
    let runs_twice = seed.is_multiple_of(REPEAT_EVERY);
    let Outcome { violation, counts: happened, lines } = run(seed, capture, runs_twice);
    counts.merge(happened.iter());
    if violation.is_none() && !runs_twice {
        return None;
    }
    let again = run(seed, capture, true);
    if runs_twice && again.lines != lines || again.violation != violation {
        return Some(nondeterminism(seed, &lines, &again.lines));
    }
    let Violation { guarantee, details } = violation?;
    let tail = again.lines[again.lines.len().saturating_sub(MAX_TRACE_LINES)..].join("\n");
    let replay = format!("make simulate SEED={seed}");
    let report = format!("{tail}\n\nseed {seed}: {guarantee}: {details}\nto replay: {replay}\n");
    Some(Failure { seed, guarantee, details, report })
}

/// The failure of a seed whose two runs differ.
fn nondeterminism(seed: u64, one: &[String], other: &[String]) -> Failure {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(MAX_TRACE_LINES);
    let show = |lines: &[String]| lines[from..(same + 1).min(lines.len())].join("\n");
    let report = format!(
        "{}\n\nthe second run:\n{}\n\nseed {seed}: two runs differ from line {same} on\n",
        show(one),
        show(other)
    );
    let details = format!("two runs differ from line {same} on");
    Failure { seed, guarantee: "deterministic", details, report }
}
