//! RMS and layer normalisation, unit length, and biases.

use super::shape::{group_launch, row_threads, rows_of, sum_bytes, wide};
use super::{Device, DeviceError, DeviceSlice, Launch};

/// `out[i] = input[gathered[i]] / sqrt(mean(square) + eps) * weight`, in bfloat16; rows in order where `gathered` is `None`.
/// The last row stands for a number beyond `input`.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn rms_norm(
    device: &Device,
    input: DeviceSlice<'_, f32>,
    gathered: Option<DeviceSlice<'_, u32>>,
    weight: DeviceSlice<'_, f32>,
    eps: f32,
    out: DeviceSlice<'_, u16>,
) -> Result<(), DeviceError> {
    let width = weight.len();
    let (input_rows, rows) =
        (rows_of(input, width, "the input")?, rows_of(out, width, "the result")?);
    match gathered {
        Some(gathered) => gathered.expect_len(rows, "rows gathered")?,
        None => input.expect_len(out.len(), "the input of a norm")?,
    }
    if rows > 0 && input_rows == 0 {
        return Err(DeviceError::Shape("rows gathered from none".to_owned()));
    }
    let wide = wide(width, [input.address(), weight.address(), out.address()]);
    let arguments = [
        input.into(),
        gathered.into(),
        input_rows.into(),
        weight.into(),
        width.into(),
        eps.into(),
        wide.into(),
        out.into(),
    ];
    // SAFETY: a block has one row of `out` and one of `input`, whose number is clamped.
    unsafe { device.launch("rms_norm", row_launch(rows, width, 1), &arguments) }
}

/// `stream[i] += added[i] / sqrt(mean(square) + eps) * weight`: what a block adds is normalised first.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn rms_norm_add(
    device: &Device,
    added: DeviceSlice<'_, f32>,
    weight: DeviceSlice<'_, f32>,
    eps: f32,
    stream: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    let width = weight.len();
    let rows = rows_of(stream, width, "the stream")?;
    added.expect_len(stream.len(), "what is added to the stream")?;
    let wide = wide(width, [added.address(), weight.address(), stream.address()]);
    let arguments =
        [added.into(), weight.into(), width.into(), eps.into(), wide.into(), stream.into()];
    // SAFETY: a block has one row of both.
    unsafe { device.launch("rms_norm_add", row_launch(rows, width, 1), &arguments) }
}

/// `(input[i] - mean) / sqrt(variance + eps) * weight + bias`, in bfloat16 to `out` and in f32 to `stream_out`, which may be
/// the input.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn layer_norm(
    device: &Device,
    input: DeviceSlice<'_, f32>,
    weight: DeviceSlice<'_, f32>,
    bias: DeviceSlice<'_, f32>,
    eps: f32,
    stream_out: Option<DeviceSlice<'_, f32>>,
    out: DeviceSlice<'_, u16>,
) -> Result<(), DeviceError> {
    let width = weight.len();
    let rows = rows_of(input, width, "the input")?;
    bias.expect_len(width, "the bias of a norm")?;
    out.expect_len(input.len(), "the result of a norm")?;
    let mut kept = input.address();
    if let Some(stream) = stream_out {
        stream.expect_len(input.len(), "the stream of a norm")?;
        kept = stream.address();
    }
    let starts = [input.address(), weight.address(), bias.address(), kept, out.address()];
    let arguments = [
        input.into(),
        weight.into(),
        bias.into(),
        width.into(),
        eps.into(),
        wide(width, starts).into(),
        stream_out.into(),
        out.into(),
    ];
    // SAFETY: a block has one row of each; a thread has read of the input what it writes, where that is the same.
    unsafe { device.launch("layer_norm", row_launch(rows, width, 2), &arguments) }
}

/// Scales every row of `width` to length 1; a row of zeros stays.
///
/// # Errors
/// The length does not fit, or the device failed.
pub fn unit_rows(
    device: &Device,
    values: DeviceSlice<'_, f32>,
    width: usize,
) -> Result<(), DeviceError> {
    let rows = rows_of(values, width, "the vectors")?;
    let arguments = [values.into(), width.into(), wide(width, [values.address()]).into()];
    // SAFETY: a block has one row.
    unsafe { device.launch("unit_rows", row_launch(rows, width, 1), &arguments) }
}

/// `values[i] += bias`, in bfloat16.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn add_bias(
    device: &Device,
    values: DeviceSlice<'_, u16>,
    bias: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    add_to_rows(device, "add_bias", values, bias)
}

/// `stream[i] += bias`.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn add_bias_f32(
    device: &Device,
    stream: DeviceSlice<'_, f32>,
    bias: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    add_to_rows(device, "add_bias_f32", stream, bias)
}

/// `kernel` is the one for `T`.
fn add_to_rows<T>(
    device: &Device,
    kernel: &'static str,
    values: DeviceSlice<'_, T>,
    bias: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    let width = bias.len();
    let rows = rows_of(values, width, "what a bias is added to")?;
    let wide = wide(width, [values.address(), bias.address()]);
    let arguments = [values.into(), bias.into(), rows.into(), width.into(), wide.into()];
    // SAFETY: a thread has eight columns of one row, or as many as are left of it.
    unsafe { device.launch(kernel, group_launch(rows, width)?, &arguments) }
}

/// A block for each row, which sums over its threads `sums` times.
fn row_launch(rows: usize, width: usize, sums: usize) -> Launch {
    let threads = row_threads(width);
    Launch::row(rows, threads).shared(sum_bytes(threads, sums))
}
