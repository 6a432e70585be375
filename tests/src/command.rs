//! Runs a program until it exits, with a timeout.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt;

const TIMEOUT: Duration = Duration::from_secs(600);

/// A command whose environment has only `PATH` and `HOME`.
pub(crate) fn command(program: &Path, home: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", home);
    command
}

/// Runs a command and returns its exit status and output.
pub(crate) async fn output(command: Command, input: &str) -> Result<Output> {
    let line = command_line(&command);
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot run {line}"))?;
    let mut stdin = child.stdin.take().context("the program has no standard input")?;
    let feed = async move {
        // The program may exit before it has read everything.
        let _ = stdin.write_all(input.as_bytes()).await;
    };
    let (output, ()) =
        tokio::time::timeout(TIMEOUT, async { tokio::join!(child.wait_with_output(), feed) })
            .await
            .with_context(|| format!("{line} did not exit within {TIMEOUT:?}"))?;
    output.with_context(|| format!("cannot run {line}"))
}

/// Runs a command and returns its standard output. Fails with its standard error if it fails.
pub(crate) async fn run(command: Command, input: &str) -> Result<String> {
    let line = command_line(&command);
    let output = output(command, input).await?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{line} failed: {}", stderr.trim());
    Ok(String::from_utf8(output.stdout)?)
}

fn command_line(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let parts = std::iter::once(program).chain(command.get_args());
    parts.map(|part| part.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
