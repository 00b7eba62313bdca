//! `pith completions`

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::{Args, CommandFactory as _};
use clap_complete::Shell;

use super::Failure;
use crate::cli::Cli;

/// Arguments of `pith completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// Whose syntax
    shell: Shell,
}

pub(super) fn run(args: CompletionsArgs) -> Result<ExitCode, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pith", &mut script);
    io::stdout().write_all(&script)?;
    Ok(ExitCode::SUCCESS)
}
