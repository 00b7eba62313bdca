//! The `pith` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    pith_server::cli::main()
}
