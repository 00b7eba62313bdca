//! A bar on standard error while a measurement goes on, if that is a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Often enough to be seen moving, seldom enough not to be measured.
const DRAWS_PER_SECOND: u8 = 2;

/// Counts to `total` under `label`. Hidden where nobody watches.
pub(super) fn bar(label: &str, total: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {pos}/{len} {elapsed} {eta}");
    ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(DRAWS_PER_SECOND))
        .with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        .with_prefix(label.to_owned())
}
