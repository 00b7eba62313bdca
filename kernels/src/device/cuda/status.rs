//! What the driver answers, as errors of a device.

use std::ffi::CStr;

use super::library::driver::{CUresult, cuGetErrorName, cuGetErrorString};
use crate::device::DeviceError;

/// `Ok` if the driver did what it was asked to; `doing` is what that was, to be read after "while".
pub(super) fn check(status: CUresult, doing: &str) -> Result<(), DeviceError> {
    match status {
        CUresult::CUDA_SUCCESS => Ok(()),
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => Err(DeviceError::OutOfMemory { wanted: 0 }),
        status if is_final(status) => {
            Err(DeviceError::Lost(format!("{} while {doing}", describe(status))))
        }
        // What is left are calls the driver refused, with the device as it was: bugs of the caller's, or of this module's.
        status => Err(DeviceError::Shape(format!("{} while {doing}", describe(status)))),
    }
}

/// The same for what needs `wanted` bytes.
pub(super) fn check_room(status: CUresult, wanted: usize, doing: &str) -> Result<(), DeviceError> {
    check(status, doing).map_err(|error| match error {
        DeviceError::OutOfMemory { .. } => DeviceError::OutOfMemory { wanted },
        error => error,
    })
}

/// The same for what goes wrong before there is a device.
pub(super) fn check_found(status: CUresult, doing: &str) -> Result<(), DeviceError> {
    match status {
        CUresult::CUDA_SUCCESS => Ok(()),
        status => Err(DeviceError::Missing(format!("{} while {doing}", describe(status)))),
    }
}

/// Whether the context is beyond use after this. Errors of kernels are told by whichever call comes next.
fn is_final(status: CUresult) -> bool {
    matches!(
        status,
        CUresult::CUDA_ERROR_DEINITIALIZED
            | CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE
            | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
            | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
            | CUresult::CUDA_ERROR_CONTAINED
            | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
            | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
            | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
            | CUresult::CUDA_ERROR_ASSERT
            | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
            | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
            | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
            | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
            | CUresult::CUDA_ERROR_INVALID_PC
            | CUresult::CUDA_ERROR_LAUNCH_FAILED
            | CUresult::CUDA_ERROR_TENSOR_MEMORY_LEAK
            | CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED
            | CUresult::CUDA_ERROR_EXTERNAL_DEVICE
            | CUresult::CUDA_ERROR_UNKNOWN
    )
}

/// Name and meaning, as the driver puts them.
pub(super) fn describe(status: CUresult) -> String {
    let mut name = std::ptr::null();
    let mut meaning = std::ptr::null();
    // SAFETY: both are set to texts that live as long as the library, or to null.
    unsafe {
        if cuGetErrorName(status, &raw mut name) != CUresult::CUDA_SUCCESS
            || cuGetErrorString(status, &raw mut meaning) != CUresult::CUDA_SUCCESS
            || name.is_null()
            || meaning.is_null()
        {
            return format!("error {}", status as u32);
        }
        let (name, meaning) = (CStr::from_ptr(name), CStr::from_ptr(meaning));
        format!("{}: {}", name.to_string_lossy(), meaning.to_string_lossy())
    }
}
