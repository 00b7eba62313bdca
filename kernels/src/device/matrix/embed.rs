//! Rows of an embedding table.

use super::{DeviceFormat, DeviceMatrix};
use crate::device::{Device, DeviceError, DeviceSlice, Launch};

const THREADS: u32 = 128;

/// For each of `tokens`, its row of `table` times `scale` into `stream` (`tokens.len()` rows of `table.cols()`). A token
/// beyond the table stands for its last. `table` has one format, any.
///
/// # Errors
/// The lengths do not fit each other, the table is made of several parts, or the device failed.
pub fn embed_rows(
    device: &Device,
    table: &DeviceMatrix,
    tokens: DeviceSlice<'_, u32>,
    scale: f32,
    stream: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    let part = table.single()?;
    let wanted = tokens.len().saturating_mul(table.cols);
    stream.expect_len(wanted, "embeddings")?;
    let kernel = match part.format {
        DeviceFormat::Bf16 => "embed_plain",
        DeviceFormat::Q4 => "embed_q4",
        DeviceFormat::Q8 => "embed_q8",
        DeviceFormat::Q8Fine => "embed_q8_fine",
        DeviceFormat::Q8Offset => "embed_q8_offset",
    };
    let arguments = [
        part.codes.as_slice().into(),
        part.scales.as_slice().into(),
        tokens.into(),
        stream.into(),
        table.rows.into(),
        table.cols.into(),
        scale.into(),
    ];
    // SAFETY: a block for each token writes a row of the stream, and reads no row beyond the table's.
    unsafe { device.launch(kernel, Launch::row(tokens.len(), THREADS), &arguments) }
}
