//! Finds the programs that the tests run: third-party tools, which `tools/build.sh` builds once
//! outside the checkout, and the binaries of this workspace.

use std::collections::HashMap;
use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

static FOUND: LazyLock<Mutex<HashMap<String, PathBuf>>> = LazyLock::new(Mutex::default);

/// The path of a tool of `tools/build.sh`, which is built first if necessary.
pub async fn tool(name: &'static str) -> Result<PathBuf> {
    tokio::task::spawn_blocking(move || find(name)).await?
}

fn find(name: &str) -> Result<PathBuf> {
    // Held during the build, because tests that run in parallel need the same tools.
    let mut found = FOUND.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(path) = found.get(name) {
        return Ok(path.clone());
    }
    // Not captured, so that the progress of a long build is visible.
    let output = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tools/build.sh"))
        .arg(name)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot run tools/build.sh")?;
    ensure!(output.status.success(), "cannot build {name}; see the output of tools/build.sh");
    let line = String::from_utf8(output.stdout)?;
    let path = line
        .trim_end()
        .strip_prefix(name)
        .map(|path| PathBuf::from(path.trim_start()))
        .with_context(|| format!("tools/build.sh printed {line:?}, not a line with {name}"))?;
    found.insert(name.into(), path.clone());
    Ok(path)
}

/// The path of a binary of this workspace, in the profile of the running test.
pub fn built(name: &str) -> Result<PathBuf> {
    // A test is at target/<profile>/deps/<test>, a binary at target/<profile>/<binary>.
    let test = env::current_exe()?;
    test.ancestors()
        .skip(1)
        .take(2)
        .map(|folder| folder.join(name))
        .find(|path| path.is_file())
        .with_context(|| {
            format!(
                "{name} is not built for the profile of {}: run `cargo build` first",
                test.display()
            )
        })
}
