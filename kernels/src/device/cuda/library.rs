//! The vendor's libraries: looked for when they are first needed, with every function that is used of them.
//!
//! The bindings call a function through its library wherever it is, and panic where one or the other is missing. So nothing is
//! called before [`Library::probe`] has said yes, and each module below names all that may be called of its library.

use std::path::PathBuf;
use std::sync::OnceLock;

use crate::device::DeviceError;

/// Where toolkits are installed, beside what `CUDA_HOME` and the system's own search say.
const INSTALLED: [&str; 2] = ["/usr/local/cuda", "/opt/cuda"];
/// Where libraries lie in a toolkit.
const FOLDERS: [&str; 2] = ["lib64", "lib"];

/// A library that may be here.
pub(super) struct Library {
    /// What people call it.
    name: &'static str,
    /// `cuda` for `libcuda.so`.
    file: &'static str,
    /// Whether the bindings find it.
    present: unsafe fn() -> bool,
    /// Whether a function is there, once the library is.
    has: fn(&str) -> bool,
    /// All functions that are called.
    functions: &'static [&'static str],
    /// What to do where it is missing.
    hint: &'static str,
    found: OnceLock<Result<(), DeviceError>>,
}

impl Library {
    /// Whether all of it is here; looked up once.
    ///
    /// # Errors
    /// [`DeviceError::Missing`] says what is not.
    pub(super) fn probe(&self) -> Result<(), DeviceError> {
        self.found.get_or_init(|| self.look()).clone()
    }

    fn look(&self) -> Result<(), DeviceError> {
        // SAFETY: opens a library of the vendor's, whose initialisers have no preconditions.
        if !unsafe { (self.present)() } && !self.look_in_toolkits() {
            let Self { name, file, hint, .. } = self;
            return Err(DeviceError::Missing(format!("there is no {name} (lib{file}): {hint}")));
        }
        match self.functions.iter().find(|function| !(self.has)(function)) {
            None => Ok(()),
            Some(function) => {
                let Self { name, hint, .. } = self;
                let why = format!("{name} is too old, it has no {function}: {hint}");
                Err(DeviceError::Missing(why))
            }
        }
    }

    /// Opens it where the system does not look. A library once opened is found by its name.
    fn look_in_toolkits(&self) -> bool {
        let homes = ["CUDA_HOME", "CUDA_PATH"].into_iter().filter_map(std::env::var_os);
        let toolkits = homes.map(PathBuf::from).chain(INSTALLED.map(PathBuf::from));
        let folders = toolkits.flat_map(|home| FOLDERS.map(|folder| home.join(folder)));
        for folder in folders {
            for name in cudarc::get_lib_name_candidates(self.file) {
                let path = folder.join(name);
                if path.is_file() && keep_open(&path) {
                    // NVRTC opens a second library by its name alone, when it first compiles.
                    keep_builtins_open(&folder, self.file);
                    // SAFETY: as in `look`.
                    return unsafe { (self.present)() };
                }
            }
        }
        false
    }
}

/// Opens the library at `path` for the rest of the process.
fn keep_open(path: &std::path::Path) -> bool {
    // SAFETY: as in `Library::look`.
    match unsafe { libloading::Library::new(path) } {
        Ok(library) => {
            std::mem::forget(library);
            true
        }
        Err(_) => false,
    }
}

fn keep_builtins_open(folder: &std::path::Path, file: &str) {
    let Ok(entries) = folder.read_dir() else { return };
    let prefix = format!("lib{file}-builtins.so");
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            keep_open(&entry.path());
        }
    }
}

/// A module that offers the functions named, and no other, and the library they are of.
macro_rules! library {
    (
        $(#[$doc:meta])* $module:ident, $sys:path, $name:literal, $file:literal, $hint:literal,
        types { $($type:ident),* $(,)? } functions { $($function:ident),* $(,)? }
    ) => {
        $(#[$doc])*
        pub(super) mod $module {
            use $sys as sys;
            pub(in super::super) use sys::{$($type,)* $($function),*};

            pub(in super::super) static LIBRARY: super::Library = super::Library {
                name: $name,
                file: $file,
                present: sys::is_culib_present,
                has: |function| {
                    // SAFETY: called after the library was found; nothing is called through the pointer.
                    unsafe { sys::culib().get::<unsafe extern "C" fn()>(function.as_bytes()).is_ok() }
                },
                functions: &[$(stringify!($function)),*],
                hint: $hint,
                found: std::sync::OnceLock::new(),
            };
        }
    };
}

library!(
    /// The driver of the card.
    driver, cudarc::driver::sys, "NVIDIA driver", "cuda", "install 570 or newer",
    types {
        CUcontext, CUdevice, CUdevice_attribute, CUevent, CUevent_flags, CUfunction, CUfunction_attribute, CUgraph,
        CUgraphExec, CUmodule, CUresult, CUstream, CUstreamCaptureMode, CUstream_flags,
    }
    functions {
        cuCtxSetCurrent, cuDeviceGet, cuDeviceGetAttribute, cuDeviceGetCount, cuDeviceGetName, cuDevicePrimaryCtxRelease_v2,
        cuDevicePrimaryCtxRetain, cuDeviceTotalMem_v2, cuDriverGetVersion, cuEventCreate, cuEventDestroy_v2,
        cuEventElapsedTime_v2, cuEventRecord, cuEventSynchronize, cuFuncGetName, cuFuncGetParamInfo, cuFuncLoad, cuFuncSetAttribute,
        cuGetErrorName, cuGetErrorString, cuGraphDestroy, cuGraphExecDestroy, cuGraphInstantiateWithFlags, cuGraphLaunch,
        cuGraphUpload, cuInit, cuLaunchKernel, cuMemAlloc_v2, cuMemFreeHost, cuMemFree_v2, cuMemGetInfo_v2, cuMemHostAlloc,
        cuMemcpyDtoDAsync_v2, cuMemcpyDtoHAsync_v2, cuMemcpyHtoDAsync_v2, cuMemsetD8Async, cuModuleEnumerateFunctions,
        cuModuleGetFunctionCount, cuModuleLoadData, cuModuleUnload, cuStreamBeginCapture_v2, cuStreamCreate,
        cuStreamDestroy_v2, cuStreamEndCapture, cuStreamQuery, cuStreamSynchronize,
    }
);

library!(
    /// The compiler of kernels as a library.
    nvrtc, cudarc::nvrtc::sys, "NVRTC", "nvrtc",
    "install the CUDA toolkit's, 12.0 or newer, and set CUDA_HOME or LD_LIBRARY_PATH",
    types { nvrtcProgram, nvrtcResult }
    functions {
        nvrtcCompileProgram, nvrtcCreateProgram, nvrtcDestroyProgram, nvrtcGetCUBIN, nvrtcGetCUBINSize, nvrtcGetErrorString,
        nvrtcGetNumSupportedArchs, nvrtcGetProgramLog, nvrtcGetProgramLogSize, nvrtcGetSupportedArchs, nvrtcVersion,
    }
);

library!(
    /// Products of matrices.
    cublaslt, cudarc::cublaslt::sys, "cuBLASLt", "cublasLt",
    "install the CUDA toolkit's, and set CUDA_HOME or LD_LIBRARY_PATH",
    types {
        cublasComputeType_t, cublasLtHandle_t, cublasLtMatmulAlgo_t, cublasLtMatmulDescAttributes_t, cublasLtMatmulDesc_t,
        cublasLtMatmulHeuristicResult_t, cublasLtMatmulPreferenceAttributes_t, cublasLtMatmulPreference_t,
        cublasLtMatrixLayout_t, cublasStatus_t, cudaDataType,
    }
    functions {
        cublasLtCreate, cublasLtDestroy, cublasLtGetStatusName, cublasLtGetVersion, cublasLtMatmul, cublasLtMatmulAlgoCheck,
        cublasLtMatmulAlgoGetHeuristic, cublasLtMatmulDescCreate, cublasLtMatmulDescDestroy, cublasLtMatmulDescSetAttribute,
        cublasLtMatmulPreferenceCreate, cublasLtMatmulPreferenceDestroy, cublasLtMatmulPreferenceSetAttribute,
        cublasLtMatrixLayoutCreate, cublasLtMatrixLayoutDestroy,
    }
);

#[cfg(test)]
mod tests {
    use super::*;

    fn absent() -> Library {
        Library {
            name: "Nothing",
            file: "pith-there-is-no-such-library",
            present: || false,
            has: |_| unreachable!("nothing is asked of a library that is not here"),
            functions: &["anything"],
            hint: "do without",
            found: OnceLock::new(),
        }
    }

    #[test]
    fn a_missing_library_is_an_error_that_names_it() {
        let why = absent().probe().unwrap_err().to_string();
        assert!(why.contains("Nothing") && why.contains("do without"), "{why}");
    }

    #[test]
    fn an_old_library_is_an_error_that_names_what_it_lacks() {
        let old = Library {
            present: || true,
            has: |name| name != "second",
            functions: &["first", "second"],
            ..absent()
        };
        let why = old.probe().unwrap_err();
        assert!(matches!(&why, DeviceError::Missing(why) if why.contains("second")), "{why}");
    }

    #[test]
    fn looking_for_what_may_not_be_here_never_panics() {
        for library in [&driver::LIBRARY, &nvrtc::LIBRARY, &cublaslt::LIBRARY] {
            match library.probe() {
                Ok(()) => {}
                Err(DeviceError::Missing(why)) => assert!(why.contains(library.name), "{why}"),
                Err(other) => panic!("{other}"),
            }
        }
    }
}
