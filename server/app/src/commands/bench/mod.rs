//! `pith bench`

use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;

mod offline;
mod process;
mod quantile;
mod run;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Tokens per second of the engine alone, without a server
    Offline(offline::OfflineArgs),
}

pub(super) fn run(command: BenchCommand) -> Result<ExitCode, Failure> {
    match command {
        BenchCommand::Offline(args) => offline::run(&args),
    }
}
