//! `pith bench`

use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;

mod device;
mod offline;
mod process;
mod run;
mod serve;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Tokens per second of the engine alone, without a server
    Offline(offline::OfflineArgs),
    /// Latency and throughput of a server under load, over gRPC
    Serve(Box<serve::ServeArgs>),
    /// What a card can do at most, and the share of it that each kernel reaches
    Device(device::DeviceArgs),
}

pub(super) fn run(command: BenchCommand) -> Result<ExitCode, Failure> {
    match command {
        BenchCommand::Offline(args) => offline::run(&args),
        BenchCommand::Serve(args) => serve::run(&args),
        BenchCommand::Device(args) => device::run(&args),
    }
}
