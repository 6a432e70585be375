//! A process that ends with its test: when it is dropped, when the test panics, and when the test
//! process itself is killed.

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

/// What to start.
#[derive(Clone, Debug)]
pub struct Spec {
    pub program: PathBuf,
    pub arguments: Vec<String>,
    /// The whole environment, but for `PATH`: a developer's proxies, AWS profiles and cluster are
    /// none of the test's business.
    pub environment: BTreeMap<String, String>,
    /// Where its output goes; appended to.
    pub log: PathBuf,
    /// Whether the end of that is shown where the test fails.
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

    /// Its output is for the test only, not for who reads why it failed.
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

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    Code(i32),
    Signal(i32),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with exit code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
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
        environment.insert("PATH".into(), std::env::var("PATH").unwrap_or_default());
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
            .context("the guard says nothing")?
            .and_then(|pid| Pid::from_raw(pid.parse()?).context("not a process id"))
            .with_context(|| format!("cannot start {} ({name})", spec.program.display()))?;
        Ok(Self { name: name.into(), pid, exit, log: spec.log, show: spec.show, _guard: guard })
    }

    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// How it ended, if it has.
    pub fn exit(&self) -> Option<Exit> {
        *self.exit.borrow()
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        // After its end its number may be somebody else's.
        if let Some(exit) = self.exit() {
            bail!("{} is not running any more: it {exit}", self.name);
        }
        kill_process(self.pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    pub async fn wait_exit(&self, limit: Duration) -> Result<Exit> {
        let mut exit = self.exit.clone();
        let exit = tokio::time::timeout(limit, exit.wait_for(Option::is_some))
            .await
            .with_context(|| format!("{} did not end within {limit:?}", self.name))?
            .with_context(|| format!("the guard of {} is gone", self.name))?;
        exit.with_context(|| format!("{} ended in an unknown way", self.name))
    }

    /// Fails, with the end of its log, if it is not running any more.
    pub fn ensure_running(&self) -> Result<()> {
        if let Some(exit) = self.exit() {
            bail!("{} {exit}; the end of its log:\n{}", self.name, self.log_end(40));
        }
        Ok(())
    }

    /// What it has written to its log so far.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    pub fn log_end(&self, lines: usize) -> String {
        let log = self.log();
        let all: Vec<&str> = log.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Seen only where the test fails: the output of one that passes is thrown away.
        if self.show {
            eprintln!("the end of the log of {}:\n{}", self.name, self.log_end(60));
        }
    }
}

/// Whether a process of this number runs.
pub fn runs(pid: i32) -> Result<bool> {
    ensure!(pid > 0, "{pid} is not a process id");
    // One that has ended keeps its number until its parent takes notice, which the first process of
    // a container may never do.
    let state = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let ended = state.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'));
    let pid = Pid::from_raw(pid).context("not a process id")?;
    Ok(!ended && rustix::process::test_kill_process(pid).is_ok())
}

fn read_log(path: &Path) -> String {
    fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}
