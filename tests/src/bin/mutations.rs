//! `make mutations`: plants one fault after the other in a copy of the sources, and runs the
//! simulation until a seed fails. A fault that survives is a hole in the checks.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use stream_notifier_tests::mutation::{Mutation, all};

/// How many seeds may be needed.
const SEEDS: u64 = 2_000;

/// How long building and running them may take.
const LIMIT: Duration = Duration::from_secs(1_200);

/// What became of a planted fault.
enum Verdict {
    /// So many seeds were needed, and this guarantee was seen to be broken.
    Caught(u64, String),
    /// Nothing was seen.
    Survived,
}

fn main() -> Result<ExitCode> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the workspace")?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    // What is built there is kept apart: cargo would take it for what it builds here.
    let (copy, target) = (target.join("mutations/sources"), target.join("mutations/target"));
    let wanted: Vec<_> = env::args().skip(1).collect();
    let mut mutations = all(root)?;
    if !wanted.is_empty() {
        mutations.retain(|it| wanted.iter().any(|wanted| it.name.contains(wanted.as_str())));
    }
    ensure!(!mutations.is_empty(), "there is no such planted fault");
    copy_sources(root, &copy)?;
    println!("{:<34} {:>6}  caught by", "planted fault", "seeds");
    let mut survived = 0;
    for mutation in &mutations {
        match examine(mutation, root, &copy, &target)? {
            Verdict::Caught(seeds, guarantee) => {
                println!("{:<34} {seeds:>6}  {guarantee}", mutation.name);
            }
            Verdict::Survived => {
                survived += 1;
                println!(
                    "{:<34} {:>6}  survived {SEEDS} seeds: {}",
                    mutation.name, "", mutation.fault
                );
            }
        }
    }
    println!("{} planted faults, {survived} survived", mutations.len());
    Ok(if survived == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Plants a fault, looks whether it is caught, and takes it out again.
fn examine(mutation: &Mutation, root: &Path, copy: &Path, target: &Path) -> Result<Verdict> {
    let changed = mutation.apply(root)?;
    for (file, text) in &changed {
        fs::write(copy.join(file), text)?;
    }
    let said = simulate(copy, target).with_context(|| mutation.name.clone());
    for (file, _) in &changed {
        fs::copy(root.join(file), copy.join(file))?;
    }
    let said = said?;
    // As the simulation tells it: `seed 7: order: record 5 …`.
    let failed = said.lines().find_map(|line| line.strip_prefix("seed ")?.split_once(": "));
    let Some((seed, what)) = failed else {
        ensure!(said.contains("a second"), "{} does not build:\n{said}", mutation.name);
        return Ok(Verdict::Survived);
    };
    let guarantee = what.split(": ").next().unwrap_or(what);
    Ok(Verdict::Caught(seed.parse::<u64>()? + 1, guarantee.to_owned()))
}

/// Builds and runs the simulation, and returns what it says.
fn simulate(copy: &Path, target: &Path) -> Result<String> {
    fs::create_dir_all(target)?;
    let said = target.join("simulation.out");
    let output = fs::File::create(&said)?;
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut child = Command::new(cargo)
        .args(["test", "--quiet", "--workspace", "--test", "simulation", "--"])
        .args(["--nocapture", "the_guarantees_hold_whatever_happens"])
        .current_dir(copy)
        .env("CARGO_TARGET_DIR", target)
        .env("SEEDS", SEEDS.to_string())
        .env_remove("SEED")
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    let begun = Instant::now();
    while child.try_wait()?.is_none() {
        if begun.elapsed() > LIMIT {
            child.kill()?;
            child.wait()?;
            return Ok("seed 0: it does not end: the simulation was stopped\n".to_owned());
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(fs::read_to_string(said)?)
}

/// Copies all that is needed to build the tests.
fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    copy_folder(from, to, &["target", ".git"])
}

fn copy_folder(from: &Path, to: &Path, left_out: &[&str]) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        if left_out.iter().any(|left_out| name == *left_out) {
            continue;
        }
        let (from, to) = (entry.path(), to.join(&name));
        if entry.file_type()?.is_dir() {
            copy_folder(&from, &to, &[])?;
        } else {
            fs::copy(from, to)?;
        }
    }
    Ok(())
}
