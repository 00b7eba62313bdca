//! Arithmetic on a device: its memory, its queue of work, and the door through which kernels are launched.
//!
//! A [`Device`] is a GPU, or the host standing in for one: the same `.cu` sources compiled by the host's compiler (`host`),
//! slow and exacting, so that every kernel and all that launches it is tested where there is no GPU. What a device
//! can do beneath is [`Driver`]; the launchers (`norm`, `attention`, ...) check every length, so that theirs are safe.
//!
//! Work is queued and done in order. Memory of a device is shared: any number of slices of it may be alive at once, and a
//! launch may write what another slice shows.

use std::fmt;
use std::sync::Arc;

use graph::Freed;

pub mod attention;
mod buffer;
pub mod copy;
pub mod cuda;
pub mod encoder;
pub mod gated;
mod graph;
pub mod heads;
#[cfg(feature = "host-device")]
pub mod host;
pub mod kv;
pub mod matrix;
pub mod measure;
pub mod norm;
pub mod sample;
pub mod score;
mod shape;
pub mod tokens;

pub use buffer::{DeviceSlice, DeviceVec, Download, Plain};
pub use graph::Graph;
pub use matrix::DeviceMatrix;

/// Why a device did not do what it was asked to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceError {
    /// There is no such device here, or what drives it is missing.
    #[error("no device: {0}")]
    Missing(String),
    /// Its memory is full.
    #[error("{wanted} bytes do not fit into the device's memory")]
    OutOfMemory {
        /// Bytes asked for.
        wanted: usize,
    },
    /// A kernel cannot be had, or was launched with other arguments than it takes.
    #[error("kernel {kernel}: {why}")]
    Kernel {
        /// Its name.
        kernel: String,
        /// What is wrong, to be read after the name.
        why: String,
    },
    /// Arguments contradict each other: a bug of the caller's.
    #[error("{0}")]
    Shape(String),
    /// The device failed. What its memory holds is void, and all that follows fails too.
    #[error("the device was lost: {0}")]
    Lost(String),
}

/// What bounds a launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceLimits {
    /// What people call it.
    pub name: String,
    /// Major and minor version of what it can compute, `(9, 0)`; `(0, 0)` is the host.
    pub capability: (u32, u32),
    /// Blocks of threads run at once on as many of these.
    pub multiprocessors: u32,
    /// Most bytes of shared memory a block may ask for.
    pub shared_bytes: u32,
    /// Bytes of memory in all.
    pub memory_bytes: usize,
}

/// Grid and block of a launch; blocks are rows of threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks in each direction.
    pub blocks: [u32; 3],
    /// Threads of a block: a multiple of 32, at most 1,024.
    pub threads: u32,
    /// Bytes of shared memory of a block.
    pub shared_bytes: u32,
}

impl Launch {
    /// `blocks` blocks side by side, no shared memory.
    pub fn row(blocks: usize, threads: u32) -> Self {
        Self { blocks: [clamp(blocks), 1, 1], threads, shared_bytes: 0 }
    }

    /// `across` by `down` blocks, no shared memory.
    pub fn plane(across: usize, down: usize, threads: u32) -> Self {
        Self { blocks: [clamp(across), clamp(down), 1], threads, shared_bytes: 0 }
    }

    /// The same with `bytes` of shared memory.
    #[must_use]
    pub fn shared(self, bytes: usize) -> Self {
        Self { shared_bytes: clamp(bytes), ..self }
    }

    /// Refuses what no device takes. A launch of no blocks is fine, and does nothing.
    fn check(&self, limits: &DeviceLimits) -> Result<(), DeviceError> {
        let wrong = |why: String| Err(DeviceError::Shape(why));
        if self.threads == 0 || self.threads > 1024 || !self.threads.is_multiple_of(32) {
            return wrong(format!("blocks of {} threads", self.threads));
        }
        let [across, down, deep] = self.blocks;
        if across > 0x7fff_ffff || down > 0xffff || deep > 0xffff {
            return wrong(format!("a grid of {:?} blocks", self.blocks));
        }
        if self.shared_bytes > limits.shared_bytes {
            let (asked, most) = (self.shared_bytes, limits.shared_bytes);
            return wrong(format!("{asked} bytes of shared memory, where a block has {most}"));
        }
        Ok(())
    }
}

/// Too large for a launch stays too large.
fn clamp(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// An argument of a kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// A pointer into the device's memory; 0 is null.
    Address(u64),
    /// `unsigned int`.
    U32(u32),
    /// `float`.
    F32(f32),
}

impl Argument {
    /// Its bytes, in the low end of eight.
    pub(crate) fn bits(self) -> u64 {
        match self {
            Self::Address(address) => address,
            Self::U32(number) => u64::from(number),
            Self::F32(number) => u64::from(number.to_bits()),
        }
    }

    /// Bytes the kernel's parameter takes.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Address(_) => 8,
            Self::U32(_) | Self::F32(_) => 4,
        }
    }
}

impl From<u32> for Argument {
    fn from(number: u32) -> Self {
        Self::U32(number)
    }
}

/// Counts beyond `u32` end up as its largest, which every launcher has refused before.
impl From<usize> for Argument {
    fn from(number: usize) -> Self {
        Self::U32(clamp(number))
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::F32(number)
    }
}

impl From<bool> for Argument {
    fn from(flag: bool) -> Self {
        Self::U32(u32::from(flag))
    }
}

impl<T> From<DeviceSlice<'_, T>> for Argument {
    fn from(slice: DeviceSlice<'_, T>) -> Self {
        Self::Address(slice.address())
    }
}

impl<T> From<Option<DeviceSlice<'_, T>>> for Argument {
    fn from(slice: Option<DeviceSlice<'_, T>>) -> Self {
        Self::Address(slice.map_or(0, |slice| slice.address()))
    }
}

/// Element type of a [`Product`]'s result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProductOut {
    /// `out = a b^T`, in bfloat16.
    Bf16,
    /// `out = a b^T`, in f32.
    F32,
    /// `out += a b^T`, in f32.
    AddF32,
}

/// `out[rows, outputs] (+)= a[rows, inputs] * b[outputs, inputs]^T`, `a` and `b` bfloat16, row by row without gaps, sums
/// in f32. Addresses are of the device.
#[derive(Debug, Clone, Copy)]
pub struct Product {
    /// Rows of `a`.
    pub rows: usize,
    /// Rows of `b`.
    pub outputs: usize,
    /// Columns of both.
    pub inputs: usize,
    /// Address of `a`.
    pub a: u64,
    /// Address of `b`.
    pub b: u64,
    /// Address of the result.
    pub out: u64,
    /// Numbers from a row of the result to the next: at least `outputs`, more where this product is some columns of a wider
    /// one.
    pub out_stride: usize,
    /// What the result is made of.
    pub kind: ProductOut,
}

/// A recorded sequence of launches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphId(pub u64);

/// A moment in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mark(pub u64);

/// What a device is driven by. Everything but `allocate` and `free` is queued, and done in the order it was queued in.
pub trait Driver: Send + Sync + fmt::Debug {
    /// What bounds launches.
    fn limits(&self) -> &DeviceLimits;
    /// Bytes of memory that are free now.
    fn free_bytes(&self) -> Result<usize, DeviceError>;
    /// Memory of `bytes` (at least 1), aligned to 256 bytes at least, or to 16 on the host. Nothing is known of what it holds.
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError>;
    /// Gives memory back, once all queued work is done with it.
    ///
    /// # Safety
    /// `address` came of [`Driver::allocate`] with the same `bytes` and was not freed before.
    unsafe fn free(&self, address: u64, bytes: usize);
    /// Copies `from` to the device. `from` may change as soon as this returns.
    ///
    /// # Safety
    /// `from.len()` bytes at `to` are allocated.
    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceError>;
    /// Begins to copy `bytes` from the device; [`Driver::fetch`] takes them.
    ///
    /// # Safety
    /// `bytes` at `from` are allocated.
    unsafe fn download(&self, from: u64, bytes: usize) -> Result<u64, DeviceError>;
    /// Waits for a download, whose ticket is void afterwards. `to` has the length asked for.
    fn fetch(&self, ticket: u64, to: &mut [u8]) -> Result<(), DeviceError>;
    /// Gives up a download.
    fn forget(&self, ticket: u64);
    /// Copies within the device; the ranges do not overlap.
    ///
    /// # Safety
    /// `bytes` are allocated at both.
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), DeviceError>;
    /// Sets `bytes` to `value`.
    ///
    /// # Safety
    /// `bytes` are allocated at `to`.
    unsafe fn fill(&self, to: u64, value: u8, bytes: usize) -> Result<(), DeviceError>;
    /// Launches a kernel.
    ///
    /// # Safety
    /// The arguments are those the kernel takes, and what it reads and writes with them in this grid is allocated.
    unsafe fn launch(
        &self,
        kernel: &'static str,
        launch: &Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError>;
    /// Computes a product with the vendor's library. `false`: there is none here, or it does not take this one.
    ///
    /// # Safety
    /// The matrices are allocated.
    unsafe fn product(&self, product: &Product) -> Result<bool, DeviceError>;
    /// Waits until everything queued is done.
    fn synchronize(&self) -> Result<(), DeviceError>;
    /// From here on launches, products, copies and fills are recorded instead of done.
    fn begin_recording(&self) -> Result<(), DeviceError>;
    /// Ends the recording.
    fn end_recording(&self) -> Result<GraphId, DeviceError>;
    /// Queues all of a recording, with the arguments it was recorded with.
    ///
    /// # Safety
    /// All memory it was recorded with is still allocated.
    unsafe fn replay(&self, graph: GraphId) -> Result<(), DeviceError>;
    /// Forgets a recording.
    fn discard(&self, graph: GraphId);
    /// Marks this moment in the queue.
    fn mark(&self) -> Result<Mark, DeviceError>;
    /// Waits for `to` and tells the seconds between two marks, which are void afterwards.
    fn seconds(&self, from: Mark, to: Mark) -> Result<f64, DeviceError>;
}

/// A device, shared by all that compute on it.
#[derive(Debug, Clone)]
pub struct Device {
    driver: Arc<dyn Driver>,
    freed: Arc<Freed>,
}

impl Device {
    /// A device behind `driver`.
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        Self { driver, freed: Arc::default() }
    }

    /// What bounds launches.
    pub fn limits(&self) -> &DeviceLimits {
        self.driver.limits()
    }

    /// Bytes of memory that are free now.
    pub fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.driver.free_bytes()
    }

    /// Waits until everything queued is done.
    pub fn synchronize(&self) -> Result<(), DeviceError> {
        self.driver.synchronize()
    }

    /// Marks this moment in the queue.
    pub fn mark(&self) -> Result<Mark, DeviceError> {
        self.driver.mark()
    }

    /// Waits for `to` and tells the seconds between two marks of this device, which are void afterwards.
    pub fn seconds(&self, from: Mark, to: Mark) -> Result<f64, DeviceError> {
        self.driver.seconds(from, to)
    }

    /// Launches a kernel.
    ///
    /// # Safety
    /// As [`Driver::launch`].
    pub(crate) unsafe fn launch(
        &self,
        kernel: &'static str,
        launch: Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        if launch.blocks.contains(&0) {
            return Ok(());
        }
        launch.check(self.limits())?;
        // SAFETY: the caller's.
        unsafe { self.driver.launch(kernel, &launch, arguments) }
    }

    pub(crate) fn driver(&self) -> &Arc<dyn Driver> {
        &self.driver
    }
}
