//! Numbers of one width to another.

use super::shape::{GROUP, group_launch};
use super::{Device, DeviceError, DeviceSlice};

/// f32 to bfloat16, to the nearest, ties to even.
///
/// # Errors
/// The lengths differ, or the device failed.
pub fn narrow(
    device: &Device,
    from: DeviceSlice<'_, f32>,
    to: DeviceSlice<'_, u16>,
) -> Result<(), DeviceError> {
    convert(device, "narrow", from, to)
}

/// bfloat16 to f32.
///
/// # Errors
/// The lengths differ, or the device failed.
pub fn widen(
    device: &Device,
    from: DeviceSlice<'_, u16>,
    to: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    convert(device, "widen", from, to)
}

/// `kernel` is the one for `F` and `T`.
fn convert<F, T>(
    device: &Device,
    kernel: &'static str,
    from: DeviceSlice<'_, F>,
    to: DeviceSlice<'_, T>,
) -> Result<(), DeviceError> {
    to.expect_len(from.len(), "converted numbers")?;
    let wide = [from.address(), to.address()].iter().all(|address| address.is_multiple_of(16));
    // The kernel counts single numbers.
    if from.len() > u32::MAX as usize - (1 << 16) {
        return Err(DeviceError::Shape(format!("{} numbers at once", from.len())));
    }
    let launch = group_launch(from.len().div_ceil(GROUP), GROUP)?;
    let arguments = [from.into(), to.into(), from.len().into(), wide.into()];
    // SAFETY: a thread has eight numbers, or as many as are left.
    unsafe { device.launch(kernel, launch, &arguments) }
}
