//! Prints lines. A reader that closes the pipe, such as `head`, must not end or block the process.

use std::fmt::Display;
use std::io::{self, Write as _};

/// Prints a line to standard output.
#[cfg(feature = "local")]
pub fn print(line: impl Display) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints a line to standard error.
pub fn print_error(line: impl Display) {
    let _ = writeln!(io::stderr(), "{line}");
}
