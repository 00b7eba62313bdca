//! The cards of this machine, before any of them is used.

use std::ffi::{CStr, c_char};

use super::library::driver::{
    CUdevice, CUdevice_attribute as Attribute, CUresult, LIBRARY, cuDeviceGet,
    cuDeviceGetAttribute, cuDeviceGetCount, cuDeviceGetName, cuDeviceTotalMem_v2,
    cuDriverGetVersion, cuInit,
};
use super::status::check_found;
use crate::device::{DeviceError, DeviceLimits};

/// A card.
#[derive(Debug, Clone)]
pub(super) struct Card {
    pub(super) device: CUdevice,
    pub(super) limits: DeviceLimits,
}

/// Wakes the driver up. Without a card, drivers refuse; that is not an error yet.
fn initialise() -> Result<bool, DeviceError> {
    LIBRARY.probe()?;
    // SAFETY: the driver is here; it may be woken up any number of times.
    match unsafe { cuInit(0) } {
        CUresult::CUDA_ERROR_NO_DEVICE => Ok(false),
        status => check_found(status, "starting the driver").map(|()| true),
    }
}

/// Newest version of CUDA that the driver knows: `13.0`.
pub(super) fn driver_version() -> Result<String, DeviceError> {
    LIBRARY.probe()?;
    let mut number = 0;
    // SAFETY: the driver is here; a number is written.
    check_found(unsafe { cuDriverGetVersion(&raw mut number) }, "asking for its version")?;
    Ok(format!("{}.{}", number / 1000, number % 1000 / 10))
}

/// How many cards there are.
pub(super) fn count() -> Result<u32, DeviceError> {
    if !initialise()? {
        return Ok(0);
    }
    let mut count = 0;
    // SAFETY: a number is written.
    check_found(unsafe { cuDeviceGetCount(&raw mut count) }, "counting cards")?;
    Ok(u32::try_from(count).unwrap_or(0))
}

/// The card of that number.
pub(super) fn card(ordinal: u32) -> Result<Card, DeviceError> {
    let count = count()?;
    if ordinal >= count {
        let why = match count {
            0 => "the driver finds no card".to_owned(),
            1 => format!("cuda:{ordinal} is asked for, and cuda:0 is all there is"),
            _ => format!("cuda:{ordinal} is asked for, and there are cuda:0 to cuda:{}", count - 1),
        };
        return Err(DeviceError::Missing(why));
    }
    let mut device = 0;
    // SAFETY: a handle is written.
    let status =
        unsafe { cuDeviceGet(&raw mut device, i32::try_from(ordinal).unwrap_or(i32::MAX)) };
    check_found(status, "choosing a card")?;
    let ask = |attribute| -> Result<u32, DeviceError> {
        let mut value = 0;
        // SAFETY: a number is written.
        let status = unsafe { cuDeviceGetAttribute(&raw mut value, attribute, device) };
        check_found(status, "asking for its limits")?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut memory_bytes = 0;
    // SAFETY: a number is written.
    let status = unsafe { cuDeviceTotalMem_v2(&raw mut memory_bytes, device) };
    check_found(status, "asking for its memory")?;
    let limits = DeviceLimits {
        name: name(device)?,
        capability: (
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            ask(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        ),
        multiprocessors: ask(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes: ask(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        memory_bytes,
    };
    Ok(Card { device, limits })
}

fn name(device: CUdevice) -> Result<String, DeviceError> {
    let mut text = [0 as c_char; 128];
    // SAFETY: at most as many bytes are written, a zero the last of them.
    let status = unsafe { cuDeviceGetName(text.as_mut_ptr(), text.len() as i32, device) };
    check_found(status, "asking for its name")?;
    // SAFETY: ends in a zero.
    Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
}
