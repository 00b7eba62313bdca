//! The kernels on the card, by name.

use std::collections::HashMap;
use std::ffi::{CStr, c_void};

use super::Capability;
use super::cache::Cache;
use super::compile::Compiler;
use super::embedded::{CUBINS, SOURCES, Source, embedded_architectures, nearest};
use super::handles::{Module, Stream};
use super::library::driver::{
    CUfunction, CUfunction_attribute, CUresult, cuFuncGetName, cuFuncGetParamInfo, cuFuncLoad,
    cuFuncSetAttribute, cuLaunchKernel, cuModuleEnumerateFunctions, cuModuleGetFunctionCount,
};
use super::status::check;
use crate::device::{Argument, DeviceError, DeviceLimits, Launch};

/// Shared memory a block has without being asked, bytes.
const SHARED_UNASKED: u32 = 48 << 10;
/// Most arguments of a kernel.
const MOST_ARGUMENTS: usize = 48;

/// A kernel.
#[derive(Debug)]
struct Kernel {
    function: CUfunction,
    /// Bytes of its parameters.
    parameters: Vec<usize>,
    /// In the code of which source.
    source: &'static str,
}

// SAFETY: handles of the driver's may be used from any thread.
unsafe impl Send for Kernel {}
// SAFETY: as above, from several at once.
unsafe impl Sync for Kernel {}

/// All kernels.
#[derive(Debug)]
pub(super) struct Modules {
    kernels: HashMap<String, Kernel>,
    /// What the kernels are in.
    _modules: Vec<Module>,
}

impl Modules {
    /// Loads the machine code for the card: what is embedded, and compiled on the spot where there is none, or none that the
    /// driver takes.
    pub(super) fn load(limits: &DeviceLimits, cache: Option<Cache>) -> Result<Self, DeviceError> {
        let capability = limits.capability;
        let refused = match nearest(capability, &embedded_architectures()) {
            None => None,
            Some(architecture) => match Self::embedded(architecture, limits) {
                Err(DeviceError::Shape(why)) => Some(why),
                result => return result,
            },
        };
        Self::compiled(capability, limits, cache).map_err(|error| match (error, refused) {
            (DeviceError::Missing(why), Some(refused)) => DeviceError::Missing(format!(
                "{why}; the driver refused what is embedded: {refused}"
            )),
            (error, _) => error,
        })
    }

    fn embedded(architecture: &str, limits: &DeviceLimits) -> Result<Self, DeviceError> {
        let fitting = CUBINS.iter().filter(|cubin| cubin.architecture == architecture);
        Self::of(fitting.map(|cubin| (cubin.name, cubin.bytes)), limits)
    }

    fn compiled(
        capability: Capability,
        limits: &DeviceLimits,
        cache: Option<Cache>,
    ) -> Result<Self, DeviceError> {
        let sources: Vec<&Source> =
            SOURCES.iter().filter(|source| source.is_for(capability)).collect();
        let cubins = Compiler::open(cache)?.compile_all(&sources, capability)?;
        let named = sources.iter().zip(&cubins);
        Self::of(named.map(|(source, cubin)| (source.name, cubin.as_slice())), limits)
    }

    fn of<'a>(
        cubins: impl Iterator<Item = (&'static str, &'a [u8])>,
        limits: &DeviceLimits,
    ) -> Result<Self, DeviceError> {
        let mut kernels: HashMap<String, Kernel> = HashMap::new();
        let mut modules = Vec::new();
        for (source, cubin) in cubins {
            let module = Module::load(cubin, source)?;
            for function in functions(&module)? {
                // Drivers put it off until the first launch, which may be in the middle of a recording.
                // SAFETY: a function of a loaded module.
                check(unsafe { cuFuncLoad(function) }, "loading a kernel")?;
                let name = name(function)?;
                let kernel = Kernel { function, parameters: parameters(function)?, source };
                kernel.allow_shared(limits.shared_bytes)?;
                if let Some(before) = kernels.insert(name.clone(), kernel) {
                    let why = format!("is in both {} and {source}", before.source);
                    return Err(DeviceError::Kernel { kernel: name, why });
                }
            }
            modules.push(module);
        }
        Ok(Self { kernels, _modules: modules })
    }

    /// Queues a kernel.
    ///
    /// # Safety
    /// As [`crate::device::Driver::launch`].
    pub(super) unsafe fn launch(
        &self,
        stream: &Stream,
        name: &'static str,
        launch: &Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let wrong = |why: String| Err(DeviceError::Kernel { kernel: name.to_owned(), why });
        let Some(kernel) = self.kernels.get(name) else {
            return wrong("is not among those of this card".to_owned());
        };
        let given = arguments.iter().map(|argument| argument.size());
        if arguments.len() > MOST_ARGUMENTS || !kernel.parameters.iter().copied().eq(given) {
            let sizes: Vec<usize> = arguments.iter().map(|argument| argument.size()).collect();
            let takes = &kernel.parameters;
            return wrong(format!("takes parameters of {takes:?} bytes, not of {sizes:?}"));
        }
        let mut values = [0u64; MOST_ARGUMENTS];
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST_ARGUMENTS];
        for ((value, pointer), argument) in values.iter_mut().zip(&mut pointers).zip(arguments) {
            *value = argument.bits();
            *pointer = std::ptr::from_mut(value).cast();
        }
        let Launch { blocks: [across, down, deep], threads, shared_bytes } = *launch;
        // SAFETY: the pointers lead to as many values as the kernel has parameters, of their sizes, in the low end of
        // eight bytes, read before the call returns. What the kernel touches is the caller's promise.
        let status = unsafe {
            cuLaunchKernel(
                kernel.function,
                across,
                down,
                deep,
                threads,
                1,
                1,
                shared_bytes,
                stream.0,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        match check(status, "launching a kernel") {
            Err(DeviceError::Shape(why)) => wrong(why),
            result => result,
        }
    }
}

impl Kernel {
    /// Lets its blocks have as much shared memory as the card gives to one. Taking more than a launch asks for costs nothing.
    fn allow_shared(&self, most: u32) -> Result<(), DeviceError> {
        if most <= SHARED_UNASKED {
            return Ok(());
        }
        let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        // SAFETY: a function of a loaded module.
        let status = unsafe { cuFuncSetAttribute(self.function, attribute, most) };
        check(status, "asking for shared memory")
    }
}

/// The kernels of `module`.
fn functions(module: &Module) -> Result<Vec<CUfunction>, DeviceError> {
    let mut count = 0;
    // SAFETY: a loaded module; a number is written.
    let status = unsafe { cuModuleGetFunctionCount(&raw mut count, module.0) };
    check(status, "counting kernels")?;
    let mut all = vec![std::ptr::null_mut(); count as usize];
    // SAFETY: as many handles as there is room for.
    let status = unsafe { cuModuleEnumerateFunctions(all.as_mut_ptr(), count, module.0) };
    check(status, "listing kernels")?;
    Ok(all)
}

fn name(function: CUfunction) -> Result<String, DeviceError> {
    let mut name = std::ptr::null();
    // SAFETY: a function of a loaded module; the text lives as long as that.
    check(unsafe { cuFuncGetName(&raw mut name, function) }, "naming a kernel")?;
    if name.is_null() {
        return Err(DeviceError::Shape("a kernel without a name".to_owned()));
    }
    // SAFETY: set to a text by the call above.
    Ok(unsafe { CStr::from_ptr(name) }.to_string_lossy().into_owned())
}

/// Bytes of each parameter of `function`.
fn parameters(function: CUfunction) -> Result<Vec<usize>, DeviceError> {
    let mut sizes = Vec::new();
    loop {
        let (mut offset, mut size) = (0, 0);
        // SAFETY: a function of a loaded module; two numbers are written.
        let status =
            unsafe { cuFuncGetParamInfo(function, sizes.len(), &raw mut offset, &raw mut size) };
        match status {
            // There are no more.
            CUresult::CUDA_ERROR_INVALID_VALUE => return Ok(sizes),
            status => check(status, "reading a kernel's parameters")?,
        }
        sizes.push(size);
    }
}
