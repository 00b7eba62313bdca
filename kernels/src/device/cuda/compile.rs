//! Kernels compiled on the machine they run on, by NVRTC: for cards this library has no machine code of.

use std::ffi::{CStr, CString, c_char};
use std::sync::Mutex;

use super::Capability;
use super::cache::{Cache, Key};
use super::embedded::{HEADERS, Source, architecture_of};
use super::library::nvrtc::{
    LIBRARY, nvrtcCompileProgram, nvrtcCreateProgram, nvrtcDestroyProgram, nvrtcGetCUBIN,
    nvrtcGetCUBINSize, nvrtcGetErrorString, nvrtcGetNumSupportedArchs, nvrtcGetProgramLog,
    nvrtcGetProgramLogSize, nvrtcGetSupportedArchs, nvrtcProgram, nvrtcResult, nvrtcVersion,
};
use crate::device::DeviceError;

/// What sources are compiled with; nvcc's, when this library is built, are the same.
const OPTIONS: [&str; 1] = ["--std=c++17"];
/// Sources compiled at once: each takes a second and some hundred megabytes.
const AT_ONCE: usize = 4;

/// Why NVRTC did not do what it was asked to, or what it found wrong.
type Refusal = String;

/// NVRTC, and what it compiled before.
#[derive(Debug)]
pub(super) struct Compiler {
    version: String,
    cache: Option<Cache>,
}

impl Compiler {
    /// # Errors
    /// It is not here.
    pub(super) fn open(cache: Option<Cache>) -> Result<Self, DeviceError> {
        LIBRARY.probe()?;
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the library is here; both are written.
        check(unsafe { nvrtcVersion(&raw mut major, &raw mut minor) })
            .map_err(|why| DeviceError::Missing(format!("NVRTC does not work: {why}")))?;
        Ok(Self { version: format!("{major}.{minor}"), cache })
    }

    /// `13.0`
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Machine code of `sources`, in their order, for a card of `capability`.
    ///
    /// # Errors
    /// NVRTC does not know the card, or does not accept a source.
    pub(super) fn compile_all(
        &self,
        sources: &[&Source],
        capability: Capability,
    ) -> Result<Vec<Vec<u8>>, DeviceError> {
        let architecture = architecture_of(capability);
        if !self.knows(capability).map_err(DeviceError::Missing)? {
            let version = &self.version;
            let why = format!("NVRTC {version} does not know {architecture}: install another");
            return Err(DeviceError::Missing(why));
        }
        let queue = Mutex::new(sources.iter().enumerate());
        let work = || {
            let mut done = Vec::new();
            loop {
                let next = queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner).next();
                let Some((index, source)) = next else { break done };
                done.push((index, self.compiled(source, &architecture)));
            }
        };
        let mut done: Vec<_> = std::thread::scope(|scope| {
            // Where no thread can be had, this one does all.
            let spawn = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..AT_ONCE.min(sources.len())).filter_map(spawn).collect();
            let mine = work();
            others.into_iter().filter_map(|other| other.join().ok()).flatten().chain(mine).collect()
        });
        done.sort_by_key(|(index, _)| *index);
        done.into_iter().map(|(_, compiled)| compiled).collect()
    }

    /// Whether it compiles for cards of `capability`.
    fn knows(&self, (major, minor): Capability) -> Result<bool, Refusal> {
        let mut count = 0;
        // SAFETY: a number is written.
        check(unsafe { nvrtcGetNumSupportedArchs(&raw mut count) })?;
        let mut all = vec![0; usize::try_from(count).unwrap_or(0)];
        // SAFETY: as many numbers as it said.
        check(unsafe { nvrtcGetSupportedArchs(all.as_mut_ptr()) })?;
        Ok(all.into_iter().any(|number| u32::try_from(number) == Ok(10 * major + minor)))
    }

    /// From the cache, or into it.
    fn compiled(&self, source: &Source, architecture: &str) -> Result<Vec<u8>, DeviceError> {
        let parts = [source.name, source.text, architecture, self.version.as_str()];
        let headers = HEADERS.iter().flat_map(|(name, text)| [*name, *text]);
        let key = Key::of(&parts.into_iter().chain(OPTIONS).chain(headers).collect::<Vec<_>>());
        if let Some(cubin) = self.cache.as_ref().and_then(|cache| cache.get(&key)) {
            return Ok(cubin);
        }
        let cubin = compile(source, architecture).map_err(|why| {
            let kernel = format!("{}.cu", source.name);
            DeviceError::Kernel { kernel, why: format!("NVRTC {}: {why}", self.version) }
        })?;
        if let Some(cache) = &self.cache {
            // A disk that is full or read-only costs time at the next start, and nothing now.
            let _ = cache.put(&key, &cubin);
        }
        Ok(cubin)
    }
}

/// A program of NVRTC's, given back when dropped.
struct Program(nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by `nvrtcCreateProgram`.
        unsafe { nvrtcDestroyProgram(&raw mut self.0) };
    }
}

fn compile(source: &Source, architecture: &str) -> Result<Vec<u8>, Refusal> {
    let text = |text: &str| CString::new(text).map_err(|_| "a source with a zero in it".to_owned());
    let (name, body) = (text(&format!("{}.cu", source.name))?, text(source.text)?);
    let names = HEADERS.iter().map(|(name, _)| text(name)).collect::<Result<Vec<_>, _>>()?;
    let headers = HEADERS.iter().map(|(_, body)| text(body)).collect::<Result<Vec<_>, _>>()?;
    let architecture = format!("--gpu-architecture={architecture}");
    let options = OPTIONS.into_iter().chain([architecture.as_str()]);
    let options = options.map(text).collect::<Result<Vec<_>, _>>()?;
    let (names, headers, options) = (pointers(&names), pointers(&headers), pointers(&options));
    let mut program = std::ptr::null_mut();
    // SAFETY: texts that end in a zero and outlive the call, as many headers as names.
    check(unsafe {
        nvrtcCreateProgram(
            &raw mut program,
            body.as_ptr(),
            name.as_ptr(),
            count(&headers),
            headers.as_ptr(),
            names.as_ptr(),
        )
    })?;
    let program = Program(program);
    // SAFETY: a live program; options as above.
    let compiled =
        check(unsafe { nvrtcCompileProgram(program.0, count(&options), options.as_ptr()) });
    compiled.map_err(|why| format!("{why}\n{}", log(&program)))?;
    let mut len = 0;
    // SAFETY: the program was compiled; a number is written.
    check(unsafe { nvrtcGetCUBINSize(program.0, &raw mut len) })?;
    let mut cubin = vec![0u8; len];
    // SAFETY: as many bytes as it said.
    check(unsafe { nvrtcGetCUBIN(program.0, cubin.as_mut_ptr().cast()) })?;
    Ok(cubin)
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    texts.iter().map(|text| text.as_ptr()).collect()
}

fn count(texts: &[*const c_char]) -> i32 {
    i32::try_from(texts.len()).unwrap_or(i32::MAX)
}

/// What the compiler had to say.
fn log(program: &Program) -> String {
    let mut len = 0;
    // SAFETY: a live program; a number is written.
    if check(unsafe { nvrtcGetProgramLogSize(program.0, &raw mut len) }).is_err() {
        return String::new();
    }
    let mut text = vec![0u8; len];
    // SAFETY: as many bytes as it said, the last of them zero.
    if check(unsafe { nvrtcGetProgramLog(program.0, text.as_mut_ptr().cast()) }).is_err() {
        return String::new();
    }
    String::from_utf8_lossy(&text).trim_end_matches('\0').trim_end().to_owned()
}

fn check(result: nvrtcResult) -> Result<(), Refusal> {
    if result == nvrtcResult::NVRTC_SUCCESS {
        return Ok(());
    }
    // SAFETY: a text that lives as long as the library, for any number.
    let text = unsafe { CStr::from_ptr(nvrtcGetErrorString(result)) };
    Err(text.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::cuda::embedded::SOURCES;

    /// The compiler, where there is one: it needs no card.
    fn compiler(cache: Option<Cache>) -> Option<Compiler> {
        match Compiler::open(cache) {
            Ok(compiler) => Some(compiler),
            Err(why) => {
                eprintln!("not run: {why}");
                None
            }
        }
    }

    #[test]
    fn every_source_compiles_from_memory_alone() {
        let Some(compiler) = compiler(None) else { return };
        // What is asked here is whether they need anything but each other. One architecture, that of all sources, tells; nvcc
        // compiles them for each (`cuda/check.sh`).
        let capability = (9, 0);
        let sources: Vec<&Source> =
            SOURCES.iter().filter(|source| source.is_for(capability)).collect();
        let cubins = compiler.compile_all(&sources, capability).unwrap();
        assert_eq!(cubins.len(), SOURCES.len());
        for (source, cubin) in sources.iter().zip(cubins) {
            assert!(cubin.starts_with(b"\x7fELF"), "{}", source.name);
        }
    }

    #[test]
    fn what_was_compiled_is_not_compiled_again() {
        let folder = tempfile::tempdir().unwrap();
        let Some(compiler) = compiler(Some(Cache::at(folder.path()))) else { return };
        let source = Source {
            name: "small",
            text: "extern \"C\" __global__ void small(int* at) { *at = 1; }",
        };
        let first = compiler.compile_all(&[&source], (8, 0)).unwrap();
        let file = std::fs::read_dir(folder.path()).unwrap().next().unwrap().unwrap();
        let written = file.metadata().unwrap().modified().unwrap();
        assert_eq!(compiler.compile_all(&[&source], (8, 0)).unwrap(), first);
        assert_eq!(file.metadata().unwrap().modified().unwrap(), written);
        // A file that was cut short is made anew.
        std::fs::write(file.path(), b"short").unwrap();
        assert_eq!(compiler.compile_all(&[&source], (8, 0)).unwrap(), first);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn errors_say_what_the_compiler_said() {
        let Some(compiler) = compiler(None) else { return };
        let source = Source { name: "wrong", text: "__global__ void wrong() { nonsense; }" };
        let error = compiler.compile_all(&[&source], (9, 0)).unwrap_err();
        let text = error.to_string();
        assert!(matches!(error, DeviceError::Kernel { .. }), "{text}");
        assert!(text.contains("wrong.cu") && text.contains("nonsense"), "{text}");
        let unknown = compiler.compile_all(&[&source], (3, 0)).unwrap_err();
        assert!(
            matches!(&unknown, DeviceError::Missing(why) if why.contains("sm_30")),
            "{unknown}"
        );
    }
}
