//! Tokens to rows of the residual stream.

use super::shape::{GROUP, rows_of, wide};
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
    check_vocab(vocab)?;
    let rows = tokens.len();
    let launch = Launch::row(rows.div_ceil(THREADS as usize), THREADS);
    let arguments =
        [tokens.into(), drawn.into(), rows.into(), drawn.len().into(), vocab.into(), out.into()];
    // SAFETY: a thread reads one token and writes one; `drawn` is read where it is long enough.
    unsafe { device.launch("resolve_tokens", launch, &arguments) }
}

/// `stream[row] = table[tokens[row]] * scale`. `table` is bfloat16, `stream` has a row for each token. A token beyond the
/// table stands for its last.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn embed_bf16(
    device: &Device,
    table: DeviceSlice<'_, u16>,
    tokens: DeviceSlice<'_, u32>,
    scale: f32,
    stream: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    if tokens.is_empty() {
        return stream.expect_len(0, "rows of no token");
    }
    let hidden = stream.len() / tokens.len();
    stream.expect_len(hidden * tokens.len(), "rows of the stream")?;
    let vocab = rows_of(table, hidden, "the embedding")?;
    check_vocab(vocab)?;
    let across = hidden.div_ceil(GROUP * THREADS as usize);
    let launch = Launch::plane(tokens.len(), across, THREADS);
    let wide = wide(hidden, [table.address(), stream.address()]);
    let arguments = [
        table.into(),
        tokens.into(),
        vocab.into(),
        hidden.into(),
        scale.into(),
        wide.into(),
        stream.into(),
    ];
    // SAFETY: a column of the grid has one token, clamped to the table's rows, and one row of the stream.
    unsafe { device.launch("embed_bf16", launch, &arguments) }
}

/// Refuses no vocabulary, and one whose tokens are no 32-bit numbers.
fn check_vocab(vocab: usize) -> Result<(), DeviceError> {
    if (1..=i32::MAX as usize).contains(&vocab) {
        return Ok(());
    }
    Err(DeviceError::Shape(format!("a vocabulary of {vocab}")))
}
