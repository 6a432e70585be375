//! Runs seeds, side by side on as many threads as asked: each on a clock of its own that stands
//! still until all tasks wait.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::runtime::Builder;

use super::config::Plan;
use super::counts::Counts;
use super::log_capture::Listening;
use super::scenario::Story;
use super::trace::Trace;
use super::world::{Violation, World};

/// Every so many seeds, one is run twice.
const TWICE: u64 = 50;

/// How much of the trace is told of a seed that fails.
const TAIL: usize = 60;

/// What one run came to.
#[derive(Debug)]
struct Outcome {
    broken: Option<Violation>,
    counts: Counts,
    lines: Vec<String>,
}

/// A seed that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// The guarantee that was broken.
    pub guarantee: &'static str,
    /// How.
    pub how: String,
    /// What happened before, and how to see all of it.
    pub story: String,
}

/// What many runs came to.
#[derive(Debug)]
pub struct Report {
    /// How many were run.
    pub seeds: u64,
    /// How long that took.
    pub took: Duration,
    /// How often everything happened.
    pub counts: Counts,
    /// The seeds that failed.
    pub failures: Vec<Failure>,
}

/// Runs a seed, with its lines or without.
fn run(seed: u64, listening: &Listening, wants_lines: bool) -> Outcome {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build();
    let runtime = runtime.expect("a runtime needs no more than memory");
    let (world, ended) = runtime.block_on(async {
        let mut rng = Rng::with_seed(seed);
        let plan = Plan::draw(&mut rng);
        let world = Arc::new(World::new(&plan, &mut rng, Trace::new(wants_lines)));
        world.note(|| format!("{plan:#?}"));
        listening.to(Some(world.clone()));
        let mut story = Story::new(world.clone(), plan, rng);
        let ended = async {
            story.unfold().await?;
            if story.is_broken() { Ok(()) } else { story.end().await }
        };
        (world, ended.await)
    });
    listening.to(None);
    // Ends what is still under way, so that nobody else has the world.
    drop(runtime);
    world.with(|model, state| {
        if let Err(panicked) = ended {
            state.break_guarantee(model, "no panic", panicked);
        }
        let mut counts = std::mem::take(&mut state.counts);
        counts.merge(model.counts());
        let lines = std::mem::replace(&mut state.trace, Trace::new(false)).into_lines();
        Outcome { broken: state.broken.take(), counts, lines }
    })
}

/// Runs a seed and returns all that happened in it, and the guarantee that was broken.
pub fn replay(seed: u64) -> (Vec<String>, Option<String>) {
    check_planted_fault();
    let Outcome { broken, lines, .. } = run(seed, &Listening::begin(), true);
    (lines, broken.map(|Violation { guarantee, how }| format!("{guarantee}: {how}")))
}

/// Runs all of these seeds, or until so many have failed.
pub fn run_all(seeds: Range<u64>, threads: usize, most_failures: usize) -> Report {
    check_planted_fault();
    let begun = Instant::now();
    let (next, failed) = (AtomicU64::new(seeds.start), AtomicUsize::new(0));
    let work = || {
        let listening = Listening::begin();
        let (mut done, mut counts, mut failures) = (0, Counts::default(), vec![]);
        while failed.load(Ordering::Relaxed) < most_failures {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            done += 1;
            if let Some(failure) = examine(seed, &listening, &mut counts) {
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
        Report { seeds: 0, took: begun.elapsed(), counts: Counts::default(), failures: vec![] };
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

/// Runs a seed, and once more where it failed or where it is its turn.
fn examine(seed: u64, listening: &Listening, counts: &mut Counts) -> Option<Failure> {
    let runs_twice = seed.is_multiple_of(TWICE);
    let Outcome { broken, counts: happened, lines } = run(seed, listening, runs_twice);
    counts.merge(happened.iter());
    if broken.is_none() && !runs_twice {
        return None;
    }
    let again = run(seed, listening, true);
    if runs_twice && again.lines != lines || again.broken != broken {
        return Some(differing(seed, &lines, &again.lines));
    }
    let Violation { guarantee, how } = broken?;
    let tail = again.lines[again.lines.len().saturating_sub(TAIL)..].join("\n");
    let replay = format!("make simulate SEED={seed}");
    let story = format!("{tail}\n\nseed {seed}: {guarantee}: {how}\nreplay it: {replay}\n");
    Some(Failure { seed, guarantee, how, story })
}

/// Two runs of a seed that are not the same.
fn differing(seed: u64, one: &[String], other: &[String]) -> Failure {
    let same = one.iter().zip(other).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(TAIL);
    let show = |lines: &[String]| lines[from..(same + 1).min(lines.len())].join("\n");
    let story = format!(
        "{}\n\nand again:\n{}\n\nseed {seed}: two runs differ from line {same} on\n",
        show(one),
        show(other)
    );
    let how = format!("two runs differ from line {same} on");
    Failure { seed, guarantee: "deterministic", how, story }
}
