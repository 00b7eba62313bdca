//! How a command fails: what went wrong, what to do about it, and the exit code.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;

use crate::hub::HubError;

/// A failed command. Printed as `error: ...` and, where there is one, `hint: ...`.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: Option<String>,
    code: u8,
}

impl Failure {
    /// The exit code of a command that could not do its work.
    pub const FAILED: u8 = 1;
    /// The exit code of a wrong command line or configuration (`EX_USAGE` of sysexits.h).
    pub const USAGE: u8 = 64;

    /// Could not be done.
    #[must_use]
    pub fn new(message: impl Display) -> Self {
        Self { message: message.to_string(), hint: None, code: Self::FAILED }
    }

    /// Was asked for wrongly.
    #[must_use]
    pub fn usage(message: impl Display) -> Self {
        Self { code: Self::USAGE, ..Self::new(message) }
    }

    /// With what to do about it, in a line.
    #[must_use]
    pub fn hint(mut self, hint: impl Display) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The code to leave with.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }

    /// Shows it on standard error; the labels are coloured on a terminal unless `NO_COLOR` is set.
    pub fn print(&self) {
        // `pith models | head` closes our standard output: that is no failure to tell of.
        if self.message.is_empty() {
            return;
        }
        let mut stderr = io::stderr().lock();
        let (red, cyan, plain) =
            if colour(&stderr) { ("\x1b[1;31m", "\x1b[1;36m", "\x1b[0m") } else { ("", "", "") };
        // Nobody is left to tell if standard error is closed.
        let _ = writeln!(stderr, "{red}error:{plain} {}", self.message);
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "{cyan}hint:{plain} {hint}");
        }
    }
}

fn colour(stderr: &io::StderrLock<'_>) -> bool {
    let unset = |name: &str| std::env::var_os(name).is_none_or(|value| value.is_empty());
    let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
    stderr.is_terminal() && unset("NO_COLOR") && !dumb
}

impl From<HubError> for Failure {
    fn from(error: HubError) -> Self {
        Self::new(&error).hint(error.hint())
    }
}

/// Writing to standard output failed.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self { message: String::new(), hint: None, code: 0 };
        }
        Self::new(format!("cannot write to standard output: {error}"))
    }
}

impl From<serde_json::Error> for Failure {
    fn from(error: serde_json::Error) -> Self {
        io::Error::from(error).into()
    }
}

impl From<pith_client::Error> for Failure {
    fn from(error: pith_client::Error) -> Self {
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            message = format!("{message}: {source}");
            cause = source.source();
        }
        let failure = Self::new(message);
        let Some(rejection) = error.rejection() else {
            return failure
                .hint("check the endpoint; `pith serve` prints its address when it is ready");
        };
        match rejection.reason.as_deref() {
            Some("PROMPT_TOO_LONG") => failure.hint("lower --budget or --max-tokens"),
            Some("UNKNOWN_MODEL") => {
                failure.hint("leave --model out to use the one that is served")
            }
            _ => failure,
        }
    }
}
