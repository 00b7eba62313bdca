//! `pith eval`

use std::process::ExitCode;

use clap::Subcommand;

use super::Failure;

mod context;
mod perplexity;

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum EvalCommand {
    /// How much of what answers a question is kept of its documents
    Context(context::ContextArgs),
    /// How well a model predicts a text
    Perplexity(perplexity::PerplexityArgs),
}

pub(super) fn run(command: EvalCommand) -> Result<ExitCode, Failure> {
    match command {
        EvalCommand::Context(args) => context::run(&args),
        EvalCommand::Perplexity(args) => perplexity::run(args),
    }
}
