//! Cleans up after a test process, however it ends.
//!
//! The test holds the writing end of the guard's standard input. When the test ends, also by
//! `SIGKILL`, the kernel closes it, and the guard reads the end of the file. It then does one of
//! these:
//!
//! - `guard run <log> <program> [argument...]` kills the program and all processes that it started.
//!   Before that, it prints `started <pid>`, and `exited <code>` or `killed <signal>` if the program
//!   ends first.
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
            print_line(&format!("failed {error}"));
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
        // In its own process group, which can be killed as a whole, and which Ctrl-C in the
        // terminal of the test does not reach.
        .process_group(0)
        .spawn()?;
    let group = Pid::from_child(&child);
    print_line(&format!("started {}", child.id()));

    thread::spawn(move || {
        wait_for_end_of_test();
        // The program may have exited already.
        let _ = kill_process_group(group, Signal::KILL);
    });
    let status = child.wait()?;
    // Kills processes that the program has left behind.
    let _ = kill_process_group(group, Signal::KILL);
    match (status.code(), status.signal()) {
        (Some(code), _) => print_line(&format!("exited {code}")),
        (None, signal) => print_line(&format!("killed {}", signal.unwrap_or_default())),
    }
    Ok(())
}

fn remove(folder: &Path) -> io::Result<()> {
    wait_for_end_of_test();
    // Processes that write to the folder are killed at the same time by other guards, and can still
    // add files.
    for _ in 0..50 {
        if fs::remove_dir_all(folder).is_ok() || !folder.exists() {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn wait_for_end_of_test() {
    let _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
}

/// Prints a line. Unlike `println!`, it does not panic if the test does not read any more.
fn print_line(line: &str) {
    let mut out = io::stdout();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
