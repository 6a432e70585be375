//! The command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    stream_notifier::cli::main()
}
