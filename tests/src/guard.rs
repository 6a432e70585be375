//! Starts the guard process of `bin/guard.rs`, which cleans up when the test process ends in any
//! way.

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
    /// Starts a guard. A thread of its own passes each line of its output to `on_line`.
    pub fn start(
        arguments: impl IntoIterator<Item = impl AsRef<OsStr>>,
        environment: impl IntoIterator<Item = (String, String)>,
        mut on_line: impl FnMut(&str) + Send + 'static,
    ) -> Result<Self> {
        let mut child = Command::new(tools::built("guard")?)
            .args(arguments)
            .env_clear()
            .envs(environment)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // In its own process group, so that Ctrl-C does not end it before the test.
            .process_group(0)
            .spawn()
            .context("cannot start the guard")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the guard has no output")?;
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                on_line(&line);
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
