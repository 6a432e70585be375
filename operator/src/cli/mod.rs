//! The command line, and the wiring behind it.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command talks to who typed it")]

pub mod crd;
#[cfg(feature = "local")]
pub mod local;
pub mod run;
pub mod shutdown;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::telemetry::error_chain;

/// Tells WebSocket clients, in real time, that a DynamoDB item has changed.
#[derive(Debug, Parser)]
#[command(name = "stream-notifier", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator.
    Run(crate::cli::run::Options),
    /// Run the whole path on this machine, with an embedded table, a gateway and a page.
    #[cfg(feature = "local")]
    Local(crate::cli::local::Options),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
}

/// Why a command failed: what happened and what to do.
pub type CommandError = Box<dyn std::error::Error + Send + Sync>;

/// Reads the command line and does what it says.
pub fn main() -> ExitCode {
    // Before any client: the Kubernetes and the AWS client each have a default of their own, and
    // rustls refuses to choose between two.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        eprintln!("stream-notifier: another TLS provider is installed already");
        return ExitCode::FAILURE;
    }
    let done = match Cli::parse().command {
        Command::Run(options) => block_on(crate::cli::run::run(options)),
        #[cfg(feature = "local")]
        Command::Local(options) => block_on(crate::cli::local::run(options)),
        Command::Crd => crate::cli::crd::print(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("stream-notifier: {}", error_chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn block_on(command: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}
