//! Runs a program that comes to an end by itself, within a limit.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;

const LIMIT: Duration = Duration::from_secs(120);

/// A command with nothing of the developer's environment but `PATH`.
pub(crate) fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home);
    command
}

/// How it ended and what it printed.
pub(crate) async fn output(command: Command, input: &str) -> Result<Output> {
    let what = describe(&command);
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {what}"))?;
    let mut stdin = child.stdin.take().context("a program without an input")?;
    let feed = async move {
        // It need not read what it is given.
        let _ = stdin.write_all(input.as_bytes()).await;
    };
    let (output, ()) =
        tokio::time::timeout(LIMIT, async { tokio::join!(child.wait_with_output(), feed) })
            .await
            .with_context(|| format!("{what} did not end within {LIMIT:?}"))?;
    output.with_context(|| format!("cannot run {what}"))
}

/// What it printed; an error, with what it said, if it failed.
pub(crate) async fn run(command: Command, input: &str) -> Result<String> {
    let what = describe(&command);
    let output = output(command, input).await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{what} failed: {}", said.trim());
    Ok(String::from_utf8(output.stdout)?)
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
