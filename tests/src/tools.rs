//! Finds the programs that the tests run: those that `tools/build.sh` makes, once and outside the
//! checkout, and those that cargo built beside the test.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

static FOUND: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);

/// The path of a tool that `tools/build.sh` knows by this name, which is made first if it has to be.
pub async fn tool(name: &'static str) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || find(name)).await?
}

fn find(name: &str) -> Result<PathBuf> {
    // Held while it is made: tests that run side by side need the same tools.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = found.get(name) {
        return Ok(path.clone());
    }
    // What it says goes past the test's captured output, so that a long build is seen.
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build.sh"))
        .arg(name)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run tools/build.sh")?;
    ensure!(output.status.success(), "there is no {name} to test with; tools/build.sh says why");
    let line = String::from_utf8(output.stdout)?;
    let path = line
        .trim_end()
        .strip_prefix(name)
        .map(|path| PathBuf::from(path.trim_start()))
        .with_context(|| format!("tools/build.sh answers {line:?}"))?;
    found.insert(name.into(), path.clone());
    Ok(path)
}

/// The path of a binary of this workspace, of the profile that the test was built with.
pub fn built(name: &str) -> Result<PathBuf> {
    // A test is at target/<profile>/deps/<test>, a binary at target/<profile>/<binary>.
    let test = env::current_exe()?;
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!("{name} is not beside the test {}: run `cargo build` first", test.display())
        })
}
