//! Stands between a test and what it started, and ends that when the test is gone.
//!
//! A test holds the writing end of the guard's standard input. However the test ends, and be it by
//! `SIGKILL`, the kernel closes that end; the guard reads the end of the file and does its duty:
//!
//! - `guard run <log> <program> [argument...]` kills the program and everything that it started.
//!   It prints `started <pid>`, and when the program ends by itself `exited <code>` or
//!   `killed <signal>`.
//! - `guard remove <folder>` removes the folder.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use std::{env, thread};

use rustix::process::{Pid, Signal, kill_process_group};

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["run", log, program, ref arguments @ ..] => run(log, program, arguments),
        ["remove", folder] => remove(Path::new(folder)),
        _ => Err(io::Error::other("usage: guard run <log> <program> ... | guard remove <folder>")),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("failed {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(log: &str, program: &str, arguments: &[&str]) -> io::Result<()> {
    let log = OpenOptions::new().create(true).append(true).open(log)?;
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: it can be killed with all that it starts, and Ctrl-C in the terminal
        // of the test does not reach it.
        .process_group(0)
        .spawn()?;
    let group = Pid::from_child(&child);
    say(&format!("started {}", child.id()));

    thread::spawn(move || {
        until_the_test_is_gone();
        // It may have ended a moment before.
        let _ = kill_process_group(group, Signal::KILL);
    });
    let status = child.wait()?;
    // What it left behind.
    let _ = kill_process_group(group, Signal::KILL);
    match (status.code(), status.signal()) {
        (Some(code), _) => say(&format!("exited {code}")),
        (None, signal) => say(&format!("killed {}", signal.unwrap_or_default())),
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    until_the_test_is_gone();
    // The processes that write there are killed at the same moment, by guards of their own, and the
    // last of them may still be adding a file.
    for _ in 0..50 {
        if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn until_the_test_is_gone() {
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
}

/// Nobody may be listening any more, which `println!` would answer with a panic.
fn say(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
