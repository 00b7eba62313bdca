//! `pith pull`

use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Args;

use super::Failure;
use crate::hub;

/// Arguments of `pith pull`.
#[derive(Debug, Args)]
pub struct PullArgs {
    /// A name from `pith models`, a file, or hf:ORG/REPO[:FILE]
    #[arg(required = true, value_name = "NAME|FILE|hf:ORG/REPO[:FILE]")]
    names: Vec<String>,
}

/// Prints the path of each.
pub(super) fn run(args: PullArgs) -> Result<ExitCode, Failure> {
    for name in args.names {
        let resolved = hub::resolve(&name)?;
        writeln!(io::stdout(), "{}", resolved.path.display())?;
    }
    Ok(ExitCode::SUCCESS)
}
