//! Progress: a bar on a terminal, plain lines elsewhere, on stderr either way.

use std::io::{self, IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::error::megabytes;

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A moving bar, without colour.
    Bar,
    /// One line when something starts and one when it is done.
    Lines,
    /// Not at all.
    Silent,
}

impl Progress {
    /// A bar if stderr is a terminal that can move its cursor, lines if not.
    pub fn detect() -> Self {
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        if io::stderr().is_terminal() && !dumb { Self::Bar } else { Self::Lines }
    }

    /// Says something that is not a measure of progress.
    pub(super) fn say(self, line: &str) {
        if self != Self::Silent {
            // Nobody is left to tell if stderr is closed.
            let _ = writeln!(io::stderr(), "{line}");
        }
    }

    /// Starts to measure `bytes` of work.
    pub(super) fn start(self, label: &str, bytes: u64) -> Meter {
        let bar = match self {
            Self::Bar => {
                let style = ProgressStyle::with_template(
                    "{prefix} [{bar:30}] {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec} {eta}",
                );
                ProgressBar::with_draw_target(Some(bytes), ProgressDrawTarget::stderr_with_hz(10))
                    .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
                    .with_prefix(label.to_owned())
            }
            Self::Lines | Self::Silent => ProgressBar::hidden(),
        };
        if self == Self::Lines {
            self.say(&format!("{label} ({})", megabytes(bytes)));
        }
        Meter { progress: self, bar, label: label.to_owned(), started: Instant::now() }
    }
}

/// A piece of work being measured. Dropped early, it leaves no trace on the terminal.
#[derive(Debug)]
pub(super) struct Meter {
    progress: Progress,
    bar: ProgressBar,
    label: String,
    started: Instant,
}

impl Meter {
    /// `bytes` are done by now.
    pub(super) fn at(&self, bytes: u64) {
        self.bar.set_position(bytes.min(self.bar.length().unwrap_or(bytes)));
    }

    /// All is done.
    pub(super) fn done(self) {
        let took: Duration = self.started.elapsed();
        self.bar.finish_and_clear();
        self.progress.say(&format!("{}: done in {:.1} s", self.label, took.as_secs_f64()));
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
