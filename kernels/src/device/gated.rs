//! Activations of the feed-forward block.

use super::shape::{group_launch, rows_of, wide};
use super::{Device, DeviceError, DeviceSlice};
use crate::activation::Activation;

/// `out[i, j] = f(gate_up[i, j]) * gate_up[i, width + j]`, in bfloat16, rows of `width` in `out` and of twice as many in
/// `gate_up`.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn gated(
    device: &Device,
    activation: Activation,
    gate_up: DeviceSlice<'_, u16>,
    width: usize,
    out: DeviceSlice<'_, u16>,
) -> Result<(), DeviceError> {
    let rows = rows_of(out, width, "the result")?;
    gate_up.expect_len(2 * out.len(), "gates and what they let through")?;
    let wide = wide(width, [gate_up.address(), out.address()]);
    let gelu = activation == Activation::GeluTanh;
    let arguments =
        [gate_up.into(), rows.into(), width.into(), gelu.into(), wide.into(), out.into()];
    // SAFETY: a thread has eight columns of one row, or as many as are left of it.
    unsafe { device.launch("gated", group_launch(rows, width)?, &arguments) }
}

/// `values[i] = gelu(values[i] + bias)` in bfloat16, the exact GELU, `x / 2 * (1 + erf(x / sqrt 2))`, of encoders.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
pub fn gelu(
    device: &Device,
    values: DeviceSlice<'_, u16>,
    bias: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    let width = bias.len();
    let rows = rows_of(values, width, "what is activated")?;
    let wide = wide(width, [values.address(), bias.address()]);
    let arguments = [values.into(), bias.into(), rows.into(), width.into(), wide.into()];
    // SAFETY: as `gated`.
    unsafe { device.launch("gelu", group_launch(rows, width)?, &arguments) }
}
