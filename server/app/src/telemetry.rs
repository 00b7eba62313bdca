//! Logs: to standard error, as text or JSON. Sizes, times and names are logged; prompts and answers never.

use std::io::IsTerminal as _;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// Begins to log as `log` says. Only the first call of a process has an effect.
///
/// # Errors
/// The filter does not parse.
pub fn init(log: &Log) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&log.filter).with_context(|| format!("log.filter {:?}", log.filter))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // NO_COLOR: any value but the empty one turns colours off (no-color.org).
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let color = std::io::stderr().is_terminal() && !plain;
    // A second subscriber in one process (tests, the demo) is refused, and the first goes on.
    let _ = match log.format {
        LogFormat::Text => builder.with_ansi(color).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    Ok(())
}
