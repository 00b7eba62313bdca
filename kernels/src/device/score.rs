//! Likelihoods of given tokens, and the cap on logits.

use super::shape::{GROUP, group_launch, logit_threads, rows_of, spread_bytes};
use super::{Device, DeviceError, DeviceSlice, Launch};

/// `out[i]` = ln-probability of token `targets[i]` by row `target_rows[i]` of `logits`, rows of `vocab`. NaN where there is no
/// such row or token, and where the row's logits are not finite or all -infinity.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn likelihoods(
    device: &Device,
    logits: DeviceSlice<'_, f32>,
    vocab: usize,
    targets: DeviceSlice<'_, u32>,
    target_rows: DeviceSlice<'_, u32>,
    out: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    let rows = rows_of(logits, vocab, "logits")?;
    target_rows.expect_len(targets.len(), "rows of targets")?;
    out.expect_len(targets.len(), "likelihoods")?;
    let wide = vocab.is_multiple_of(4) && logits.address().is_multiple_of(16);
    let threads = logit_threads(vocab);
    let launch = Launch::row(targets.len(), threads).shared(spread_bytes(threads));
    let arguments = [
        logits.into(),
        rows.into(),
        vocab.into(),
        targets.into(),
        target_rows.into(),
        wide.into(),
        out.into(),
    ];
    // SAFETY: a block has one target, and reads a row that is there.
    unsafe { device.launch("likelihoods", launch, &arguments) }
}

/// `logits = cap * tanh(logits / cap)`.
///
/// # Errors
/// There are more than 2^32 of them, the cap is not above 0, or the device failed.
pub fn softcap(device: &Device, logits: DeviceSlice<'_, f32>, cap: f32) -> Result<(), DeviceError> {
    // The kernel counts single numbers, those of threads past the end too.
    if cap.is_nan() || cap <= 0.0 || logits.len() > u32::MAX as usize - (1 << 16) {
        let why = format!("{} logits capped at {cap}", logits.len());
        return Err(DeviceError::Shape(why));
    }
    let launch = group_launch(logits.len().div_ceil(GROUP), GROUP)?;
    let wide = logits.address().is_multiple_of(16);
    let arguments = [logits.into(), logits.len().into(), cap.into(), wide.into()];
    // SAFETY: a thread has eight logits, or as many as are left.
    unsafe { device.launch("softcap", launch, &arguments) }
}
