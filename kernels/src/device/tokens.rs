//! The tokens of a step, those that the host does not know yet among them.

use super::{Device, DeviceError, DeviceSlice, Launch};

const THREADS: u32 = 128;

/// The tokens of a step, to `out`: a number from 0 on is a token, `-1 - i` is the token drawn at `drawn[i]`, so that a step
/// can be launched before the host knows what the one before it chose. A token beyond the vocabulary becomes its last,
/// an `i` beyond `drawn` token 0.
///
/// # Errors
/// `tokens` and `out` differ in length, there is no vocabulary, or the device failed.
pub fn resolve_tokens(
    device: &Device,
    tokens: DeviceSlice<'_, i32>,
    drawn: DeviceSlice<'_, u32>,
    vocab: usize,
    out: DeviceSlice<'_, u32>,
) -> Result<(), DeviceError> {
    out.expect_len(tokens.len(), "resolved tokens")?;
    // What is negative is no token.
    if !(1..=i32::MAX as usize).contains(&vocab) {
        return Err(DeviceError::Shape(format!("a vocabulary of {vocab}")));
    }
    let rows = tokens.len();
    let launch = Launch::row(rows.div_ceil(THREADS as usize), THREADS);
    let arguments =
        [tokens.into(), drawn.into(), rows.into(), drawn.len().into(), vocab.into(), out.into()];
    // SAFETY: a thread reads one token and writes one; `drawn` is read where it is long enough.
    unsafe { device.launch("resolve_tokens", launch, &arguments) }
}
