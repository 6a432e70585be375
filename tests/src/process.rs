//! Child process that ends when it is dropped, when the test panics, and when the test process is
//! killed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;
use std::{fmt, fs};

use anyhow::{Context, Result, anyhow, bail, ensure};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::sync::watch;

use crate::guard::Guard;

/// The program to start.
#[derive(Clone, Debug)]
pub struct Spec {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The whole environment except `PATH`. Proxies, AWS profiles and kubeconfigs of the developer
    /// must not affect a test.
    pub environment: BTreeMap<String, String>,
    /// The file to which the output is appended.
    pub log: PathBuf,
    /// Whether the end of the log is printed when the process is dropped.
    pub show: bool,
}

impl Spec {
    pub fn new(program: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self {
            program: program.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            log: log.into(),
            show: true,
        }
    }

    /// Does not print the end of the log.
    pub fn quiet(mut self) -> Self {
        self.show = false;
        self
    }

    pub fn arguments(mut self, arguments: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(Into::into));
        self
    }

    pub fn environment(
        mut self,
        variables: impl IntoIterator<Item = (impl Into<String>, impl Into<String>)>,
    ) -> Self {
        self.environment.extend(variables.into_iter().map(|(k, v)| (k.into(), v.into())));
        self
    }
}

/// How a process exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by signal {signal}"),
        }
    }
}

pub struct Process {
    name: String,
    pid: Pid,
    exit: watch::Receiver<Option<Exit>>,
    log: PathBuf,
    show: bool,
    _guard: Guard,
}

impl Process {
    pub fn start(name: &str, spec: Spec) -> Result<Self> {
        let mut environment = spec.environment;
        environment
            .entry("PATH".into())
            .or_insert_with(|| std::env::var("PATH").unwrap_or_default());
        let mut arguments = vec!["run".into(), spec.log.display().to_string()];
        arguments.push(spec.program.display().to_string());
        arguments.extend(spec.arguments);

        let (started, pid) = mpsc::channel();
        let (ended, exit) = watch::channel(None);
        let guard = Guard::start(arguments, environment, move |line| {
            match line.split_once(' ') {
                Some(("started", pid)) => drop(started.send(Ok(pid.to_owned()))),
                Some(("exited", code)) => drop(ended.send(code.parse().ok().map(Exit::Code))),
                Some(("killed", signal)) => drop(ended.send(signal.parse().ok().map(Exit::Signal))),
                _ => drop(started.send(Err(anyhow!("{line}")))),
            };
        })?;
        let pid = pid
            .recv_timeout(Duration::from_secs(30))
            .context("the guard did not report the start")?
            .and_then(|pid| Pid::from_raw(pid.parse()?).context("not a process id"))
            .with_context(|| format!("cannot start {} ({name})", spec.program.display()))?;
        Ok(Self { name: name.into(), pid, exit, log: spec.log, show: spec.show, _guard: guard })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// The exit status, once the process has exited.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        // Another process may have the same id by now.
        if let Some(exit) = self.exit() {
            bail!("{} is not running: it {exit}", self.name);
        }
        kill_process(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    pub async fn wait_exit(&self, limit: Duration) -> Result<Exit> {
        let mut exit = self.exit.clone();
        let exit = tokio::time::timeout(limit, exit.wait_for(Option::is_some))
            .await
            .with_context(|| format!("{} did not exit within {limit:?}", self.name))?
            .with_context(|| format!("the guard of {} has exited", self.name))?;
        exit.with_context(|| format!("the guard of {} reported no exit status", self.name))
    }

    /// Fails with the end of the log if the process has exited.
    pub fn ensure_running(&self) -> Result<()> {
        if let Some(exit) = self.exit() {
            bail!("{} {exit}; end of its log:\n{}", self.name, self.log_tail(40));
        }
        Ok(())
    }

    /// The content of the log file.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    pub fn log_tail(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // cargo prints it only if the test fails.
        if self.show {
            eprintln!("end of the log of {}:\n{}", self.name, self.log_tail(60));
        }
    }
}

/// Whether a process with this id runs.
pub fn is_running(pid: i32) -> Result<bool> {
    ensure!(pid > 0, "{pid} is not a process id");
    // A zombie keeps its id until its parent waits for it. The first process of a container may
    // never do that.
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ended = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    let pid = Pid::from_raw(pid).context("not a process id")?;
    Ok(!ended && rustix::process::test_kill_process(pid).is_ok())
}

fn read_log(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
