//! Runs the operator's binary as a process.

use std::path::Path;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::Value;

use crate::process::{Exit, Process, Signal, Spec};
use crate::scratch::Scratch;
use crate::tools::built;
use crate::wait::eventually;

const BINARY: &str = "stream-notifier";

pub struct Operator {
    process: Process,
    _scratch: Scratch,
}

impl Operator {
    /// Starts `stream-notifier` with these arguments. Its environment has only these variables,
    /// `PATH`, `HOME` and `KUBECONFIG`.
    pub fn start(
        arguments: impl IntoIterator<Item = impl Into<String>>,
        environment: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
        kubeconfig: Option<&Path>,
    ) -> Result<Self> {
        let scratch = Scratch::new("operator")?;
        let kubeconfig = kubeconfig.map(|path| ("KUBECONFIG", path.display().to_string()));
        let spec = Spec::new(built(BINARY)?, scratch.path().join("operator.log"))
            .arguments(arguments)
            .environment([("HOME", scratch.path().display().to_string())])
            .environment(kubeconfig)
            .environment(environment);
        Ok(Self { process: Process::start(BINARY, spec)?, _scratch: scratch })
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Kills it, as a crash does.
    pub async fn kill(&self) -> Result<Exit> {
        self.process.signal(Signal::KILL)?;
        self.process.wait_exit(Duration::from_secs(30)).await
    }

    /// Sends SIGTERM, as Kubernetes does, and waits for its exit.
    pub async fn terminate(&self, limit: Duration) -> Result<Exit> {
        self.process.signal(Signal::TERM)?;
        self.process.wait_exit(limit).await
    }

    pub fn log(&self) -> String {
        self.process.log()
    }

    /// The lines of its log that are JSON.
    pub fn events(&self) -> Vec<Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Waits for a matching line of its log, and returns it.
    pub async fn wait_for_line(
        &self,
        limit: Duration,
        what: &str,
        matches: impl Fn(&str) -> bool,
    ) -> Result<String> {
        eventually(limit, format!("the operator to log {what}"), async || {
            let log = self.log();
            if let Some(line) = log.lines().find(|line| matches(line)) {
                return Ok(line.to_owned());
            }
            self.process.ensure_running()?;
            bail!("no such line; the last lines are:\n{}", self.process.log_tail(20))
        })
        .await
    }
}
