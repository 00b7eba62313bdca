//! The commands, one per module. Data goes to standard output, everything else to standard error.

use std::process::ExitCode;

use crate::cli::{Cli, Command};

mod answer;
pub mod ask;
pub mod bench;
pub mod completions;
pub mod demo;
pub mod doctor;
pub mod eval;
mod failure;
mod lines;
mod local;
pub mod models;
mod plot;
mod progress;
pub mod pull;
mod quantile;
mod random;
mod report;
pub mod serve;

pub use failure::Failure;

/// Does what the command line says.
///
/// # Errors
/// [`Failure`], to be shown as `error:` and `hint:` lines.
pub fn run(cli: Cli) -> Result<ExitCode, Failure> {
    let Cli { command, log } = cli;
    if !matches!(command, Command::Serve(_)) {
        local::start_log(log.as_deref())?;
    }
    match command {
        Command::Serve(args) => serve::run(args, log),
        Command::Ask(args) => ask::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Pull(args) => pull::run(args),
        Command::Models(args) => models::run(args),
        Command::Bench(command) => bench::run(command),
        Command::Eval(command) => eval::run(command),
        Command::Doctor(args) => doctor::run(args),
        Command::Completions(args) => completions::run(args),
    }
}
