//! `pith eval`

use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;

mod perplexity;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// How well a model predicts a text
    Perplexity(perplexity::PerplexityArgs),
}

pub(super) fn run(command: EvalCommand) -> Result<ExitCode, Failure> {
    match command {
        EvalCommand::Perplexity(args) => perplexity::run(args),
    }
}
