//! Things of the driver's that are given back when dropped. All are made and dropped while their context is current.

use std::ffi::c_void;
use std::ptr::NonNull;

use super::library::driver::{
    CUcontext, CUdevice, CUevent, CUevent_flags, CUgraphExec, CUmodule, CUstream, CUstream_flags,
    cuCtxSetCurrent, cuDevicePrimaryCtxRelease_v2, cuDevicePrimaryCtxRetain, cuEventCreate,
    cuEventDestroy_v2, cuEventElapsedTime_v2, cuEventRecord, cuEventSynchronize,
    cuGraphExecDestroy, cuMemFreeHost, cuMemHostAlloc, cuModuleLoadData, cuModuleUnload,
    cuStreamCreate, cuStreamDestroy_v2, cuStreamSynchronize,
};
use super::status::{check, check_found, check_room};
use crate::device::DeviceError;

/// A context of the driver's, shared by all of the process that use the card.
#[derive(Debug)]
pub(super) struct Context {
    device: CUdevice,
    raw: CUcontext,
}

// SAFETY: handles of the driver's may be used from any thread.
unsafe impl Send for Context {}
// SAFETY: as above, from several at once.
unsafe impl Sync for Context {}

impl Context {
    pub(super) fn retain(device: CUdevice) -> Result<Self, DeviceError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: `device` is one the driver named.
        check_found(unsafe { cuDevicePrimaryCtxRetain(&raw mut raw, device) }, "opening it")?;
        Ok(Self { device, raw })
    }

    /// Makes it this thread's: what the driver is asked next is asked of it.
    pub(super) fn make_current(&self) -> Result<(), DeviceError> {
        // SAFETY: retained until dropped.
        check(unsafe { cuCtxSetCurrent(self.raw) }, "taking its context")
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once in `retain`.
        unsafe { cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

/// A queue of work.
#[derive(Debug)]
pub(super) struct Stream(pub(super) CUstream);

// SAFETY: handles of the driver's may be used from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above, from several at once.
unsafe impl Sync for Stream {}

impl Stream {
    pub(super) fn new() -> Result<Self, DeviceError> {
        let mut raw = std::ptr::null_mut();
        // Waits for nothing that others of the process queue.
        let flags = CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
        // SAFETY: a context is current.
        check(unsafe { cuStreamCreate(&raw mut raw, flags) }, "making a stream")?;
        Ok(Self(raw))
    }

    pub(super) fn synchronize(&self) -> Result<(), DeviceError> {
        // SAFETY: a live stream.
        check(unsafe { cuStreamSynchronize(self.0) }, "waiting for its work")
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        unsafe { cuStreamDestroy_v2(self.0) };
    }
}

/// A moment in a stream.
#[derive(Debug)]
pub(super) struct Event(CUevent);

// SAFETY: handles of the driver's may be used from any thread.
unsafe impl Send for Event {}

impl Event {
    /// One that knows the time.
    pub(super) fn timed() -> Result<Self, DeviceError> {
        Self::new(0)
    }

    /// One to wait for.
    pub(super) fn untimed() -> Result<Self, DeviceError> {
        Self::new(CUevent_flags::CU_EVENT_DISABLE_TIMING as u32)
    }

    fn new(flags: u32) -> Result<Self, DeviceError> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: a context is current.
        check(unsafe { cuEventCreate(&raw mut raw, flags) }, "making an event")?;
        Ok(Self(raw))
    }

    /// Moves it to the end of what is queued now.
    pub(super) fn record(&self, stream: &Stream) -> Result<(), DeviceError> {
        // SAFETY: both are alive, and of one context.
        check(unsafe { cuEventRecord(self.0, stream.0) }, "marking a moment")
    }

    pub(super) fn wait(&self) -> Result<(), DeviceError> {
        // SAFETY: alive.
        check(unsafe { cuEventSynchronize(self.0) }, "waiting for its work")
    }

    /// Seconds from this event to `later`; both are timed and have come.
    pub(super) fn seconds_until(&self, later: &Self) -> Result<f64, DeviceError> {
        let mut milliseconds = 0.0f32;
        // SAFETY: both are alive.
        let status = unsafe { cuEventElapsedTime_v2(&raw mut milliseconds, self.0, later.0) };
        check(status, "reading its clock")?;
        Ok(f64::from(milliseconds) / 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: made in `new`. One that has not come is given back when it does.
        unsafe { cuEventDestroy_v2(self.0) };
    }
}

/// Memory of the host that the card reads and writes by itself.
#[derive(Debug)]
pub(super) struct Pinned {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: plain memory.
unsafe impl Send for Pinned {}

impl Pinned {
    /// `len` bytes, at least 1, all of them 0.
    pub(super) fn new(len: usize) -> Result<Self, DeviceError> {
        let mut raw: *mut c_void = std::ptr::null_mut();
        // SAFETY: a context is current.
        let status = unsafe { cuMemHostAlloc(&raw mut raw, len, 0) };
        check_room(status, len, "allocating memory of the host")?;
        let start =
            NonNull::new(raw.cast::<u8>()).ok_or(DeviceError::OutOfMemory { wanted: len })?;
        // SAFETY: `len` bytes that nobody else knows of.
        unsafe { start.as_ptr().write_bytes(0, len) };
        Ok(Self { start, len })
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Its first byte.
    pub(super) fn as_ptr(&self) -> *mut u8 {
        self.start.as_ptr()
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`. Whoever drops it has waited for the copies that use it.
        unsafe { cuMemFreeHost(self.start.as_ptr().cast()) };
    }
}

/// Compiled kernels on the card.
#[derive(Debug)]
pub(super) struct Module(pub(super) CUmodule);

// SAFETY: handles of the driver's may be used from any thread.
unsafe impl Send for Module {}
// SAFETY: as above, from several at once.
unsafe impl Sync for Module {}

impl Module {
    /// Loads a cubin.
    pub(super) fn load(cubin: &[u8], name: &str) -> Result<Self, DeviceError> {
        // The driver reads numbers in it: a copy is aligned, what is embedded in the program may not be.
        let mut aligned = vec![0u64; cubin.len().div_ceil(8)];
        // SAFETY: as many bytes are there; the ranges are of different allocations.
        unsafe {
            aligned.as_mut_ptr().cast::<u8>().copy_from_nonoverlapping(cubin.as_ptr(), cubin.len());
        }
        let mut raw = std::ptr::null_mut();
        // SAFETY: the image says itself how long it is; it was made by the vendor's compiler, and checked since.
        let status = unsafe { cuModuleLoadData(&raw mut raw, aligned.as_ptr().cast()) };
        check(status, &format!("loading {name}"))?;
        Ok(Self(raw))
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        // SAFETY: loaded in `load`.
        unsafe { cuModuleUnload(self.0) };
    }
}

/// A recording, ready to be queued.
#[derive(Debug)]
pub(super) struct Graph(pub(super) CUgraphExec);

// SAFETY: handles of the driver's may be used from any thread; this one from one at a time.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: instantiated by whoever made this. One that is being run is given back when that is over.
        unsafe { cuGraphExecDestroy(self.0) };
    }
}
