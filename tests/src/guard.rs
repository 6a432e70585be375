//! A guard ends with the test process, however that ends, and does its duty then (see
//! `bin/guard.rs`).

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, Command, Stdio};

use anyhow::{Context, Result};

use crate::tools;

pub(crate) struct Guard {
    child: Child,
    stdin: Option<ChildStdin>,
}

impl Guard {
    /// Starts a guard; `heard` gets each line that it prints, on a thread of its own.
    pub fn start(
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: impl IntoIterator<Item = (String, String)>,
        mut heard: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self> {
        let mut child = Command::new(tools::built("guard")?)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Out of reach of Ctrl-C: it must outlive the test by a moment.
            .process_group(0)
            .spawn()
            .context("cannot start the guard")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the guard has no output")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                heard(&line);
            }
        });
        Ok(Self { child, stdin })
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.child.wait();
    }
}
