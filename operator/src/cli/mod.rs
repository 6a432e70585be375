//! Command line of `stream-notifier`: one module for each subcommand.

pub mod crd;
pub mod error;
pub mod kubernetes;
#[cfg(feature = "local")]
pub mod local;
pub mod output;
pub mod proxy;
mod run;
pub mod shutdown;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::error::CommandError;
use self::output::print_error;
use crate::telemetry::error_chain;

/// Pushes DynamoDB item changes to WebSocket clients in real time.
#[derive(Debug, Parser)]
#[command(name = "stream-notifier", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator in a Kubernetes cluster.
    Run(self::run::Options),
    /// Run a StreamNotifier on this machine, with an embedded DynamoDB, a WebSocket gateway and a page.
    #[cfg(feature = "local")]
    Local(self::local::Options),
    /// Print the CustomResourceDefinition as YAML.
    Crd,
}

/// Parses the command line and runs the subcommand.
pub fn main() -> ExitCode {
    // The TLS provider must be installed before any client is created. The Kubernetes and the AWS client
    // enable different ones, and rustls does not choose between them.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        print_error("stream-notifier: cannot install the TLS provider: another one is installed");
        return ExitCode::FAILURE;
    }
    let result = match Cli::parse().command {
        Command::Run(options) => block_on(self::run::run(options)),
        #[cfg(feature = "local")]
        Command::Local(options) => block_on(self::local::run(options)),
        Command::Crd => self::crd::print(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(format_args!("stream-notifier: {}", error_chain(&*error)));
            ExitCode::FAILURE
        }
    }
}

fn block_on(command: impl Future<Output = Result<(), CommandError>>) -> Result<(), CommandError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(command)
}
