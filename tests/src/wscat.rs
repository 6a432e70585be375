//! Runs wscat, the WebSocket client that the README uses.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::tools::tool;

pub struct Wscat {
    messages: watch::Receiver<Vec<String>>,
    _process: Child,
    // wscat ends with its standard input.
    _stdin: ChildStdin,
}

impl Wscat {
    /// Starts wscat. Without a terminal it prints each message, and not that it is connected.
    pub async fn connect(url: &str) -> Result<Self> {
        let mut process = Command::new(tool("wscat").await?)
            .args(["--connect", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .context("cannot run wscat")?;
        let stdin = process.stdin.take().context("no standard input")?;
        let stdout = process.stdout.take().context("no standard output")?;
        let (sender, messages) = watch::channel(Vec::new());
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|messages| messages.push(line));
            }
        });
        Ok(Self { messages, _process: process, _stdin: stdin })
    }

    /// Waits for this number of messages, which must equal the expected ones.
    pub async fn wait_for(&self, limit: Duration, expected: &[Value]) -> Result<()> {
        let mut messages = self.messages.clone();
        let wait = messages.wait_for(|messages| messages.len() >= expected.len());
        let received = tokio::time::timeout(limit, wait)
            .await
            .with_context(|| format!("wscat received only {:?}", self.messages.borrow()))?
            .context("wscat has ended")?
            .clone();
        let received: Vec<Value> =
            received.iter().map(|text| serde_json::from_str(text)).collect::<Result<_, _>>()?;
        ensure!(received == expected, "wscat received {received:?}");
        Ok(())
    }
}
