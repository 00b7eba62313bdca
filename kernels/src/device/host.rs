//! The host in a device's place, for tests: kernels compiled as plain C++, their threads run by fibers.
//!
//! Every allocation ends at a page that cannot be touched and begins as bytes of 255, which as floats are NaN. A launch with
//! arguments the kernel does not take is refused, and so is one whose threads wait for each other in vain. Blocks and warps
//! run one after the other, forwards or backwards: what comes out in both orders alike does not lean on a barrier that is
//! not there.

use std::collections::HashMap;
use std::ffi::{CString, c_char, c_int, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Argument, Device, DeviceError, DeviceLimits, Driver, GraphId, Launch, Mark, Product};

unsafe extern "C" {
    fn pith_host_launch(
        name: *const c_char,
        blocks: *const u32,
        threads: u32,
        shared_bytes: u32,
        arguments: *mut *mut c_void,
        sizes: *const usize,
        count: usize,
        backwards: c_int,
        why: *mut c_char,
        room: usize,
    ) -> c_int;
}

/// A host device. `multiprocessors` is what it claims to have: planners split work by it.
pub fn device(multiprocessors: u32) -> Device {
    Device::new(Arc::new(HostDevice::new(multiprocessors, false)))
}

/// The same, with blocks, warps and threads run in the opposite order.
pub fn backwards_device(multiprocessors: u32) -> Device {
    Device::new(Arc::new(HostDevice::new(multiprocessors, true)))
}

/// Memory the device claims to have. Pages of the host are taken when they are written.
const MEMORY_BYTES: usize = 8 << 30;

/// What was queued while recording.
#[derive(Debug, Clone)]
enum Recorded {
    Launch { kernel: &'static str, launch: Launch, arguments: Vec<Argument> },
    Copy { to: u64, from: u64, bytes: usize },
    Fill { to: u64, value: u8, bytes: usize },
}

#[derive(Debug, Default)]
struct State {
    recording: Option<Vec<Recorded>>,
    graphs: HashMap<GraphId, Arc<[Recorded]>>,
    downloads: HashMap<u64, Vec<u8>>,
    marks: HashMap<Mark, Instant>,
}

/// See the [module](self).
#[derive(Debug)]
pub struct HostDevice {
    limits: DeviceLimits,
    backwards: bool,
    state: Mutex<State>,
    next: AtomicU64,
    /// Bytes allocated.
    used: AtomicUsize,
    /// See [`HostDevice::allocations`].
    allocations: AtomicUsize,
    /// Set by [`HostDevice::lose`].
    lost: AtomicBool,
}

impl HostDevice {
    /// A device that claims to have `multiprocessors`.
    pub fn new(multiprocessors: u32, backwards: bool) -> Self {
        let limits = DeviceLimits {
            name: "host".to_owned(),
            capability: (0, 0),
            multiprocessors,
            // As much as an sm_90 block may have.
            shared_bytes: 227 << 10,
            memory_bytes: MEMORY_BYTES,
        };
        Self {
            limits,
            backwards,
            state: Mutex::default(),
            next: AtomicU64::new(1),
            used: AtomicUsize::new(0),
            allocations: AtomicUsize::new(0),
            lost: AtomicBool::new(false),
        }
    }

    /// How often memory was taken so far.
    pub fn allocations(&self) -> usize {
        self.allocations.load(Ordering::Relaxed)
    }

    /// From here on everything fails, as on a device that fell off its bus.
    pub fn lose(&self) {
        self.lost.store(true, Ordering::Relaxed);
    }

    fn alive(&self) -> Result<(), DeviceError> {
        match self.lost.load(Ordering::Relaxed) {
            true => Err(DeviceError::Lost("it was taken away".to_owned())),
            false => Ok(()),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Keeps `work` if a recording is under way.
    fn recorded(&self, work: impl FnOnce() -> Recorded) -> Result<bool, DeviceError> {
        self.alive()?;
        match &mut self.state().recording {
            Some(recording) => {
                recording.push(work());
                Ok(true)
            }
            None => Ok(false),
        }
    }

    /// # Safety
    /// As [`Driver::launch`].
    unsafe fn run(
        &self,
        kernel: &'static str,
        launch: &Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let wrong = |why: String| DeviceError::Kernel { kernel: kernel.to_owned(), why };
        let name = CString::new(kernel).map_err(|_| wrong("has no name".to_owned()))?;
        let mut values: Vec<u64> = arguments.iter().map(|argument| argument.bits()).collect();
        let sizes: Vec<usize> = arguments.iter().map(|argument| argument.size()).collect();
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| std::ptr::from_mut(value).cast()).collect();
        let mut why = [0u8; 256];
        // SAFETY: the pointers lead to `count` values of eight bytes that outlive the call; the kernel is run only if
        // it takes arguments of these sizes; what it touches is the caller's promise.
        let failed = unsafe {
            pith_host_launch(
                name.as_ptr(),
                launch.blocks.as_ptr(),
                launch.threads,
                launch.shared_bytes,
                pointers.as_mut_ptr(),
                sizes.as_ptr(),
                sizes.len(),
                c_int::from(self.backwards),
                why.as_mut_ptr().cast(),
                why.len(),
            )
        };
        if failed == 0 {
            return Ok(());
        }
        let len = why.iter().position(|&byte| byte == 0).unwrap_or(why.len());
        Err(wrong(String::from_utf8_lossy(&why[..len]).into_owned()))
    }
}

/// Bytes of a page.
fn page() -> usize {
    // SAFETY: a query without arguments in memory.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096)
}

/// Bytes as they lie before the guard: numbers and vectors of sixteen bytes stay aligned.
fn aligned(bytes: usize) -> usize {
    bytes.next_multiple_of(16)
}

impl Driver for HostDevice {
    fn limits(&self) -> &DeviceLimits {
        &self.limits
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.alive()?;
        Ok(self.limits.memory_bytes.saturating_sub(self.used.load(Ordering::Relaxed)))
    }

    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        if bytes > self.free_bytes()? {
            return Err(DeviceError::OutOfMemory { wanted: bytes });
        }
        let room = aligned(bytes).next_multiple_of(page());
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh private mapping wherever the system likes.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), room + page(), access, flags, -1, 0) };
        let refused = || DeviceError::OutOfMemory { wanted: bytes };
        if at == libc::MAP_FAILED {
            return Err(refused());
        }
        let start = NonNull::new(at.cast::<u8>()).ok_or_else(refused)?;
        // SAFETY: the last page of the mapping above.
        let guarded =
            unsafe { libc::mprotect(start.as_ptr().add(room).cast(), page(), libc::PROT_NONE) };
        if guarded != 0 {
            return Err(refused());
        }
        // SAFETY: inside the mapping.
        let first = unsafe { start.as_ptr().add(room - aligned(bytes)) };
        // SAFETY: `aligned(bytes)` bytes up to the guard. Large pools stay unmapped until they are used.
        unsafe { first.write_bytes(0xff, aligned(bytes).min(64 << 20)) };
        self.used.fetch_add(bytes, Ordering::Relaxed);
        self.allocations.fetch_add(1, Ordering::Relaxed);
        Ok(first.expose_provenance() as u64)
    }

    unsafe fn free(&self, address: u64, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        let room = aligned(bytes).next_multiple_of(page());
        let start = address as usize - (room - aligned(bytes));
        // SAFETY: the mapping that `allocate` made for as many bytes.
        unsafe { libc::munmap(std::ptr::with_exposed_provenance_mut(start), room + page()) };
    }

    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceError> {
        self.alive()?;
        if self.state().recording.is_some() {
            return Err(DeviceError::Shape("an upload inside a recording".to_owned()));
        }
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
        // SAFETY: the caller's; the slice is none of the device's memory.
        unsafe { to.copy_from_nonoverlapping(from.as_ptr(), from.len()) };
        Ok(())
    }

    unsafe fn download(&self, from: u64, bytes: usize) -> Result<u64, DeviceError> {
        self.alive()?;
        let from = std::ptr::with_exposed_provenance::<u8>(from as usize);
        // SAFETY: the caller's; nothing writes to the device's memory while this copies.
        let copy = unsafe { std::slice::from_raw_parts(from, bytes) }.to_vec();
        let ticket = self.number();
        let mut state = self.state();
        if state.recording.is_some() {
            return Err(DeviceError::Shape("a download inside a recording".to_owned()));
        }
        state.downloads.insert(ticket, copy);
        Ok(ticket)
    }

    fn fetch(&self, ticket: u64, to: &mut [u8]) -> Result<(), DeviceError> {
        self.alive()?;
        match self.state().downloads.remove(&ticket) {
            Some(copy) if copy.len() == to.len() => {
                to.copy_from_slice(&copy);
                Ok(())
            }
            _ => Err(DeviceError::Shape("there is no such download".to_owned())),
        }
    }

    fn forget(&self, ticket: u64) {
        self.state().downloads.remove(&ticket);
    }

    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), DeviceError> {
        if self.recorded(|| Recorded::Copy { to, from, bytes })? {
            return Ok(());
        }
        let from = std::ptr::with_exposed_provenance::<u8>(from as usize);
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
        // SAFETY: the caller's.
        unsafe { to.copy_from_nonoverlapping(from, bytes) };
        Ok(())
    }

    unsafe fn fill(&self, to: u64, value: u8, bytes: usize) -> Result<(), DeviceError> {
        if self.recorded(|| Recorded::Fill { to, value, bytes })? {
            return Ok(());
        }
        let to = std::ptr::with_exposed_provenance_mut::<u8>(to as usize);
        // SAFETY: the caller's.
        unsafe { to.write_bytes(value, bytes) };
        Ok(())
    }

    unsafe fn launch(
        &self,
        kernel: &'static str,
        launch: &Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        let arguments_kept = arguments.to_vec();
        let record = || Recorded::Launch { kernel, launch: *launch, arguments: arguments_kept };
        if self.recorded(record)? {
            return Ok(());
        }
        // SAFETY: the caller's.
        unsafe { self.run(kernel, launch, arguments) }
    }

    unsafe fn product(&self, _: &Product) -> Result<bool, DeviceError> {
        self.alive()?;
        Ok(false)
    }

    fn synchronize(&self) -> Result<(), DeviceError> {
        self.alive()
    }

    fn begin_recording(&self) -> Result<(), DeviceError> {
        self.alive()?;
        match self.state().recording.replace(Vec::new()) {
            None => Ok(()),
            Some(_) => Err(DeviceError::Shape("a recording within a recording".to_owned())),
        }
    }

    fn end_recording(&self) -> Result<GraphId, DeviceError> {
        self.alive()?;
        let id = GraphId(self.number());
        let mut state = self.state();
        let Some(recording) = state.recording.take() else {
            return Err(DeviceError::Shape("no recording is under way".to_owned()));
        };
        state.graphs.insert(id, recording.into());
        Ok(id)
    }

    unsafe fn replay(&self, graph: GraphId) -> Result<(), DeviceError> {
        self.alive()?;
        let recording = self.state().graphs.get(&graph).cloned();
        let missing = || DeviceError::Shape("there is no such recording".to_owned());
        for work in recording.ok_or_else(missing)?.iter() {
            // SAFETY: what was promised of each when it was recorded holds still, says the caller.
            unsafe {
                match work {
                    Recorded::Launch { kernel, launch, arguments } => {
                        self.run(kernel, launch, arguments)
                    }
                    &Recorded::Copy { to, from, bytes } => self.copy(to, from, bytes),
                    &Recorded::Fill { to, value, bytes } => self.fill(to, value, bytes),
                }
            }?;
        }
        Ok(())
    }

    fn discard(&self, graph: GraphId) {
        self.state().graphs.remove(&graph);
    }

    fn mark(&self) -> Result<Mark, DeviceError> {
        self.alive()?;
        let mark = Mark(self.number());
        self.state().marks.insert(mark, Instant::now());
        Ok(mark)
    }

    fn seconds(&self, from: Mark, to: Mark) -> Result<f64, DeviceError> {
        self.alive()?;
        let mut state = self.state();
        match (state.marks.remove(&from), state.marks.remove(&to)) {
            (Some(from), Some(to)) => Ok(to.saturating_duration_since(from).as_secs_f64()),
            _ => Err(DeviceError::Shape("there is no such mark".to_owned())),
        }
    }
}
