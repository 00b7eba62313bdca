//! The command line: what can be asked of `pith`, and how it ends.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands::{self, Failure};

/// A private inference server that shortens long contexts exactly and honestly.
#[derive(Debug, Parser)]
#[command(name = "pith", version, propagate_version = true, max_term_width = 100)]
#[command(
    after_help = "Models are kept under PITH_HOME (default: $XDG_CACHE_HOME/pith, else ~/.cache/pith).\n\
    Data goes to standard output, everything else to standard error. Exit codes: 0 done, 1 failed, 64 wrong usage."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
    /// What to log, to standard error: a level (error, warn, info, debug, trace) or target=level pairs.
    /// Default: warn; `serve` has its own setting, log.filter
    #[arg(long, global = true, value_name = "FILTER", help_heading = "Global options")]
    pub log: Option<String>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a model over gRPC
    Serve(commands::serve::ServeArgs),
    /// Answer a question from files, with sources
    Ask(commands::ask::AskArgs),
    /// See it all work: a real model answers a question from a long document
    Demo(commands::demo::DemoArgs),
    /// Fetch a model ahead of its first use
    Pull(commands::pull::PullArgs),
    /// List the models that can be fetched by name
    Models(commands::models::ModelsArgs),
    /// Measure how fast it is
    #[command(subcommand)]
    Bench(commands::bench::BenchCommand),
    /// Measure how good a model is
    #[command(subcommand)]
    Eval(commands::eval::EvalCommand),
    /// Check that this machine has what pith needs
    Doctor(commands::doctor::DoctorArgs),
    /// Print a completion script for a shell
    Completions(commands::completions::CompletionsArgs),
}

/// Reads the command line, does what it says, and reports failures on standard error.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version come this way too, for standard output.
            let code = if error.use_stderr() { Failure::USAGE } else { 0 };
            return match error.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(Failure::FAILED),
            };
        }
    };
    match commands::run(cli) {
        Ok(code) => code,
        Err(failure) => {
            failure.print();
            failure.exit_code()
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_hangs_together() {
        super::Cli::command().debug_assert();
    }
}
