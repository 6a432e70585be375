//! Error of a command.

/// Reason for which a command failed. Its text says what failed and what to do.
pub type CommandError = Box<dyn std::error::Error + Send + Sync>;
