//! Products of matrices by the vendor's library. It offers several algorithms for a product, and its first guess can be half as
//! fast as the best of them, so they are timed, once for each shape.

use std::collections::HashMap;
use std::ffi::{CStr, c_void};
use std::mem::MaybeUninit;

use super::handles::{Event, Stream};
use super::library::cublaslt::{
    LIBRARY, cublasLtCreate, cublasLtDestroy, cublasLtGetStatusName, cublasLtGetVersion,
    cublasLtHandle_t, cublasLtMatmul, cublasLtMatmulAlgo_t, cublasLtMatmulAlgoCheck,
    cublasLtMatmulAlgoGetHeuristic, cublasLtMatmulHeuristicResult_t, cublasStatus_t,
};
use super::library::driver::{CUresult, cuMemAlloc_v2, cuMemFree_v2, cuStreamQuery};
use super::status::{check, check_room};
use crate::device::{DeviceError, Product, ProductOut};

mod description;

use description::{Layouts, Operation, Preference};

/// Memory the library may work in, bytes: as much as it makes use of on Hopper.
const WORKSPACE: usize = 32 << 20;
/// Algorithms that are timed.
const CANDIDATES: usize = 8;
/// Runs of one that are timed, after one that is not.
const RUNS: usize = 4;
/// Best alignment of an address that the library asks about, bytes.
const ALIGNMENT: u64 = 256;

/// Products that have one algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    /// The power of two that the rows fit into.
    bucket: usize,
    outputs: usize,
    inputs: usize,
    out_stride: usize,
    kind: ProductOut,
    /// Of all three matrices, bytes.
    alignment: u64,
}

impl Shape {
    fn of(product: &Product) -> Self {
        let Product { rows, outputs, inputs, a, b, out, out_stride, kind } = *product;
        let alignment = 1 << (a | b | out | ALIGNMENT).trailing_zeros();
        Self { bucket: rows.next_power_of_two(), outputs, inputs, out_stride, kind, alignment }
    }
}

/// How products of a shape are computed.
#[derive(Debug, Clone, Copy)]
struct Choice {
    algorithm: cublasLtMatmulAlgo_t,
    /// Rows of the product it was chosen for: others must be asked about.
    rows: usize,
    /// Whether it is to stay. If not, it was the library's first guess, in the middle of a recording.
    timed: bool,
}

/// The library, its workspace and what is known of it.
#[derive(Debug)]
pub(super) struct Products {
    handle: cublasLtHandle_t,
    operation: Operation,
    workspace: Memory,
    /// None: the library does not take such a product.
    known: HashMap<Shape, Option<Choice>>,
}

// SAFETY: the handles may be used from any thread, by one at a time.
unsafe impl Send for Products {}

/// Version of the library, if it is here: `13.0.2`.
pub(super) fn version() -> Result<String, DeviceError> {
    LIBRARY.probe()?;
    // SAFETY: the library is here.
    let number = unsafe { cublasLtGetVersion() };
    Ok(format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100))
}

impl Products {
    /// # Errors
    /// The library is not here, or does not work on this card.
    pub(super) fn new() -> Result<Self, DeviceError> {
        LIBRARY.probe()?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the library is here and a context is current.
        let status = unsafe { cublasLtCreate(&raw mut handle) };
        if status != cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            return Err(DeviceError::Missing(format!("cuBLASLt does not work: {}", name(status))));
        }
        let parts = || Ok((Operation::new()?, Memory::new(WORKSPACE)?));
        match parts() {
            Ok((operation, workspace)) => {
                Ok(Self { handle, operation, workspace, known: HashMap::new() })
            }
            Err(error) => {
                // SAFETY: made above.
                unsafe { cublasLtDestroy(handle) };
                Err(error)
            }
        }
    }

    /// Queues a product; false if the library does not take it.
    ///
    /// # Safety
    /// The matrices are allocated.
    pub(super) unsafe fn multiply(
        &mut self,
        stream: &Stream,
        recording: bool,
        product: &Product,
    ) -> Result<bool, DeviceError> {
        if product.rows == 0 || product.outputs == 0 {
            return Ok(true);
        }
        if product.inputs == 0 {
            return Ok(false);
        }
        let layouts = Layouts::of(product)?;
        let shape = Shape::of(product);
        let choice = match self.known.get(&shape) {
            Some(&None) => return Ok(false),
            Some(&Some(choice)) if choice.timed || recording => choice,
            _ => {
                // SAFETY: the caller's.
                let chosen = unsafe { self.choose(stream, recording, product, &layouts, shape) }?;
                self.known.insert(shape, chosen);
                let Some(choice) = chosen else { return Ok(false) };
                choice
            }
        };
        let algorithm = if choice.rows == product.rows || self.takes(&choice.algorithm, &layouts) {
            choice.algorithm
        } else {
            match self.candidates(&layouts, shape)?.first() {
                Some(first) => *first,
                None => return Ok(false),
            }
        };
        // SAFETY: the caller's.
        let status = unsafe { self.run(stream, product, product.out, &layouts, &algorithm) };
        if status == cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            return Ok(true);
        }
        if !recording {
            still_there(stream)?;
        }
        Err(refused("cublasLtMatmul", status))
    }

    /// The fastest algorithm for `product`; in a recording, where nothing can be timed, the first.
    ///
    /// # Safety
    /// As [`Self::multiply`].
    unsafe fn choose(
        &self,
        stream: &Stream,
        recording: bool,
        product: &Product,
        layouts: &Layouts,
        shape: Shape,
    ) -> Result<Option<Choice>, DeviceError> {
        let candidates = self.candidates(layouts, shape)?;
        let Some(&first) = candidates.first() else { return Ok(None) };
        let rows = product.rows;
        let guess = Choice { algorithm: first, rows, timed: candidates.len() == 1 };
        if recording || guess.timed {
            return Ok(Some(guess));
        }
        // Products that add to their result are not to do so several times.
        let scratch = match product.kind {
            ProductOut::Bf16 | ProductOut::F32 => None,
            ProductOut::AddF32 => match Memory::new(rows * product.out_stride * 4) {
                Ok(memory) => Some(memory),
                // There will be no more room the next time.
                Err(DeviceError::OutOfMemory { .. }) => {
                    return Ok(Some(Choice { timed: true, ..guess }));
                }
                Err(error) => return Err(error),
            },
        };
        let out = scratch.as_ref().map_or(product.out, |memory| memory.address);
        let (from, to) = (Event::timed()?, Event::timed()?);
        let mut fastest: Option<(f64, Choice)> = None;
        for algorithm in candidates {
            // SAFETY: the caller's; the scratch is as large as the result.
            let run = || unsafe { self.run(stream, product, out, layouts, &algorithm) };
            if run() != cublasStatus_t::CUBLAS_STATUS_SUCCESS {
                still_there(stream)?;
                continue;
            }
            from.record(stream)?;
            for _ in 0..RUNS {
                run();
            }
            to.record(stream)?;
            to.wait()?;
            let seconds = from.seconds_until(&to)?;
            if fastest.is_none_or(|(best, _)| seconds < best) {
                fastest = Some((seconds, Choice { algorithm, rows, timed: true }));
            }
        }
        Ok(fastest.map(|(_, choice)| choice))
    }

    /// Algorithms for what `layouts` describe, the likeliest first.
    fn candidates(
        &self,
        layouts: &Layouts,
        shape: Shape,
    ) -> Result<Vec<cublasLtMatmulAlgo_t>, DeviceError> {
        let preference = Preference::new(shape.alignment)?;
        let mut found: [cublasLtMatmulHeuristicResult_t; CANDIDATES] =
            // SAFETY: numbers, and a status whose 0 is success.
            unsafe { MaybeUninit::zeroed().assume_init() };
        let mut count = 0;
        let Layouts { a, b, out } = layouts;
        // SAFETY: everything is alive, and there is room for as many results.
        let status = unsafe {
            cublasLtMatmulAlgoGetHeuristic(
                self.handle,
                self.operation.0,
                b.0,
                a.0,
                out.0,
                out.0,
                preference.0,
                CANDIDATES as i32,
                found.as_mut_ptr(),
                &raw mut count,
            )
        };
        match status {
            cublasStatus_t::CUBLAS_STATUS_SUCCESS => {}
            cublasStatus_t::CUBLAS_STATUS_NOT_SUPPORTED
            | cublasStatus_t::CUBLAS_STATUS_INVALID_VALUE
            | cublasStatus_t::CUBLAS_STATUS_ARCH_MISMATCH => return Ok(Vec::new()),
            status => return Err(refused("cublasLtMatmulAlgoGetHeuristic", status)),
        }
        let found = &found[..usize::try_from(count).unwrap_or(0).min(CANDIDATES)];
        let usable = found.iter().filter(|result| {
            result.state == cublasStatus_t::CUBLAS_STATUS_SUCCESS
                && result.workspaceSize <= WORKSPACE
        });
        Ok(usable.map(|result| result.algo).collect())
    }

    /// Whether `algorithm`, chosen for another product of the shape, computes this one.
    fn takes(&self, algorithm: &cublasLtMatmulAlgo_t, layouts: &Layouts) -> bool {
        // SAFETY: as in `candidates`.
        let mut result: cublasLtMatmulHeuristicResult_t =
            unsafe { MaybeUninit::zeroed().assume_init() };
        let Layouts { a, b, out } = layouts;
        // SAFETY: everything is alive.
        let status = unsafe {
            cublasLtMatmulAlgoCheck(
                self.handle,
                self.operation.0,
                b.0,
                a.0,
                out.0,
                out.0,
                algorithm,
                &raw mut result,
            )
        };
        status == cublasStatus_t::CUBLAS_STATUS_SUCCESS && result.workspaceSize <= WORKSPACE
    }

    /// # Safety
    /// The matrices are allocated, the result at `out`.
    unsafe fn run(
        &self,
        stream: &Stream,
        product: &Product,
        out: u64,
        layouts: &Layouts,
        algorithm: &cublasLtMatmulAlgo_t,
    ) -> cublasStatus_t {
        let at = |address: u64| std::ptr::without_provenance_mut::<c_void>(address as usize);
        let one = 1.0f32;
        let before = match product.kind {
            ProductOut::Bf16 | ProductOut::F32 => 0.0f32,
            ProductOut::AddF32 => 1.0f32,
        };
        // SAFETY: the factors are on the host, as is said where nothing is said; the rest is the caller's.
        unsafe {
            cublasLtMatmul(
                self.handle,
                self.operation.0,
                (&raw const one).cast(),
                at(product.b),
                layouts.b.0,
                at(product.a),
                layouts.a.0,
                (&raw const before).cast(),
                at(out),
                layouts.out.0,
                at(out),
                layouts.out.0,
                algorithm,
                at(self.workspace.address),
                WORKSPACE,
                stream.0.cast(),
            )
        }
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        // SAFETY: made in `new`.
        unsafe { cublasLtDestroy(self.handle) };
    }
}

/// Tells whether the card is lost, where the library only says that something failed.
fn still_there(stream: &Stream) -> Result<(), DeviceError> {
    // SAFETY: a live stream, of which nothing is being recorded.
    match unsafe { cuStreamQuery(stream.0) } {
        CUresult::CUDA_ERROR_NOT_READY => Ok(()),
        status => check(status, "multiplying matrices"),
    }
}

fn refused(function: &str, status: cublasStatus_t) -> DeviceError {
    DeviceError::Kernel { kernel: function.to_owned(), why: name(status) }
}

fn name(status: cublasStatus_t) -> String {
    // SAFETY: a text that lives as long as the library, for any number.
    unsafe { CStr::from_ptr(cublasLtGetStatusName(status)) }.to_string_lossy().into_owned()
}

fn accepted(function: &str, status: cublasStatus_t) -> Result<(), DeviceError> {
    match status {
        cublasStatus_t::CUBLAS_STATUS_SUCCESS => Ok(()),
        status => Err(refused(function, status)),
    }
}

/// Memory of the card.
#[derive(Debug)]
struct Memory {
    address: u64,
}

impl Memory {
    fn new(bytes: usize) -> Result<Self, DeviceError> {
        let mut address = 0;
        // SAFETY: a context is current.
        check_room(unsafe { cuMemAlloc_v2(&raw mut address, bytes) }, bytes, "allocating")?;
        Ok(Self { address })
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new`; the driver waits for what uses it.
        unsafe { cuMemFree_v2(self.address) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn product(rows: usize, out: u64) -> Product {
        let (outputs, kind) = (64, ProductOut::Bf16);
        Product { rows, outputs, inputs: 128, a: 0x1000, b: 0x2000, out, out_stride: outputs, kind }
    }

    #[test]
    fn rows_of_a_power_of_two_share_an_algorithm() {
        let shape = |rows| Shape::of(&product(rows, 0x4000));
        assert_eq!(shape(1).bucket, 1);
        assert_eq!(shape(33), shape(64));
        assert_ne!(shape(32), shape(33));
    }

    #[test]
    fn a_shape_knows_how_its_worst_matrix_is_aligned() {
        let alignment = |out| Shape::of(&product(1, out)).alignment;
        assert_eq!(alignment(0x4000), ALIGNMENT);
        assert_eq!(alignment(0x4010), 16);
        assert_eq!(alignment(0x4002), 2);
    }
}
