//! What the vendor's library is asked for, and when: the host's driver with a library of plain loops.

use std::sync::{Arc, Mutex};

use pith_kernels::device::host::HostDevice;
use pith_kernels::device::matrix::{
    DeviceMatrixBuilder, MatmulPath, OutSlice, matmul, scratch_len,
};
use pith_kernels::device::{
    Argument, Device, DeviceError, DeviceLimits, DeviceVec, Driver, GraphId, Launch, Mark, Product,
    ProductOut,
};
use pith_kernels::{Pool, Quant};

use super::matrix::{Numbers, bf16, build, dequantised, float, random_rows};
use crate::passed_over;

/// The host, with a library.
#[derive(Debug)]
struct Vendor {
    host: HostDevice,
    /// Rows and outputs of what it was asked for.
    asked: Mutex<Vec<(usize, usize)>>,
}

/// The numbers at `address` of the host device.
///
/// # Safety
/// `len` numbers are allocated there, and nothing else looks at them meanwhile.
unsafe fn numbers<'a, T>(address: u64, len: usize) -> &'a mut [T] {
    let first = std::ptr::with_exposed_provenance_mut(address as usize);
    // SAFETY: the caller's.
    unsafe { std::slice::from_raw_parts_mut(first, len) }
}

impl Driver for Vendor {
    unsafe fn product(&self, product: &Product) -> Result<bool, DeviceError> {
        let &Product { rows, outputs, inputs, a, b, out, out_stride, kind } = product;
        self.asked.lock().unwrap().push((rows, outputs));
        // SAFETY: the caller's.
        let (a, b): (&mut [u16], &mut [u16]) =
            unsafe { (numbers(a, rows * inputs), numbers(b, outputs * inputs)) };
        for (row, a) in a.chunks_exact(inputs).enumerate() {
            for (output, b) in b.chunks_exact(inputs).enumerate() {
                let sum: f32 = a.iter().zip(b.iter()).map(|(&a, &b)| float(a) * float(b)).sum();
                let at = (row * out_stride + output) as u64;
                // SAFETY: the caller's.
                unsafe {
                    match kind {
                        ProductOut::Bf16 => numbers(out + 2 * at, 1)[0] = bf16(sum),
                        ProductOut::F32 => numbers(out + 4 * at, 1)[0] = sum,
                        ProductOut::AddF32 => numbers::<f32>(out + 4 * at, 1)[0] += sum,
                    }
                }
            }
        }
        Ok(true)
    }

    fn limits(&self) -> &DeviceLimits {
        self.host.limits()
    }
    fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.host.free_bytes()
    }
    fn allocate(&self, bytes: usize) -> Result<u64, DeviceError> {
        self.host.allocate(bytes)
    }
    unsafe fn free(&self, address: u64, bytes: usize) {
        // SAFETY: the caller's.
        unsafe { self.host.free(address, bytes) }
    }
    unsafe fn upload(&self, to: u64, from: &[u8]) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.host.upload(to, from) }
    }
    unsafe fn download(&self, from: u64, bytes: usize) -> Result<u64, DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.host.download(from, bytes) }
    }
    fn fetch(&self, ticket: u64, to: &mut [u8]) -> Result<(), DeviceError> {
        self.host.fetch(ticket, to)
    }
    fn forget(&self, ticket: u64) {
        self.host.forget(ticket);
    }
    unsafe fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.host.copy(to, from, bytes) }
    }
    unsafe fn fill(&self, to: u64, value: u8, bytes: usize) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.host.fill(to, value, bytes) }
    }
    unsafe fn launch(
        &self,
        kernel: &'static str,
        launch: &Launch,
        arguments: &[Argument],
    ) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.host.launch(kernel, launch, arguments) }
    }
    fn synchronize(&self) -> Result<(), DeviceError> {
        self.host.synchronize()
    }
    fn begin_recording(&self) -> Result<(), DeviceError> {
        self.host.begin_recording()
    }
    fn end_recording(&self) -> Result<GraphId, DeviceError> {
        self.host.end_recording()
    }
    unsafe fn replay(&self, graph: GraphId) -> Result<(), DeviceError> {
        // SAFETY: the caller's.
        unsafe { self.host.replay(graph) }
    }
    fn discard(&self, graph: GraphId) {
        self.host.discard(graph);
    }
    fn mark(&self) -> Result<Mark, DeviceError> {
        self.host.mark()
    }
    fn seconds(&self, from: Mark, to: Mark) -> Result<f64, DeviceError> {
        self.host.seconds(from, to)
    }
}

fn vendor() -> (Arc<Vendor>, Device) {
    let host = HostDevice::new(3, false);
    let vendor = Arc::new(Vendor { host, asked: Mutex::default() });
    (Arc::clone(&vendor), Device::new(vendor))
}

/// Two parts, one of which is made bfloat16 in slabs: each product of the library fills its own columns, and ours, of the
/// very same operands, agree with them.
#[test]
fn the_library_fills_the_columns_of_parts_and_slabs() {
    if passed_over("plain loops are the vendor's library") {
        return;
    }
    let (vendor, device) = vendor();
    let cols = 64;
    let mut builder = DeviceMatrixBuilder::new(&device, cols);
    let mut weights = Vec::new();
    for (quant, rows) in [(Quant::BF16, 5), (Quant::Q4_0, 300)] {
        let bytes = random_rows(quant, rows, cols, 8);
        builder.segment(quant).unwrap().push_rows(&Pool::new(1), &bytes).unwrap();
        weights.extend(dequantised(quant, &bytes, cols));
    }
    let matrix = builder.finish().unwrap();
    let mut random = Numbers::new(4);
    let x: Vec<u16> = (0..3 * cols).map(|_| bf16(random.float())).collect();
    let input = DeviceVec::from_slice(&device, &x).unwrap();
    let scratch = DeviceVec::<u16>::new(&device, 256 * cols).unwrap();
    let len = 3 * matrix.rows();
    let run = |path, out: OutSlice<'_>| {
        matmul(&device, &matrix, input.as_slice(), 3, out, scratch.as_slice(), path).unwrap();
    };
    let f32s = DeviceVec::from_slice(&device, &vec![2.5f32; len]).unwrap();
    run(MatmulPath::Vendor, OutSlice::F32(f32s.as_slice()));
    // 300 rows in a scratch for 256: two slabs, as even as tiles allow.
    assert_eq!(*vendor.asked.lock().unwrap(), [(3, 5), (3, 256), (3, 44)]);
    let product = f32s.as_slice().to_vec().unwrap();
    let ours = DeviceVec::<f32>::new(&device, len).unwrap();
    run(MatmulPath::Gemm, OutSlice::F32(ours.as_slice()));
    let close = |a: f32, b: f32, bound: f32| assert!((a - b).abs() <= bound, "{a} {b}");
    for (&a, b) in product.iter().zip(ours.as_slice().to_vec().unwrap()) {
        close(a, b, 1e-4);
    }
    // Through the weights of the file, which bfloat16 rounds.
    for (x, product) in x.chunks_exact(cols).zip(product.chunks_exact(matrix.rows())) {
        for (w, &product) in weights.chunks_exact(cols).zip(product) {
            let sum: f32 = x.iter().zip(w).map(|(&x, w)| float(x) * w).sum();
            let size: f32 = x.iter().zip(w).map(|(&x, w)| (float(x) * w).abs()).sum();
            close(product, sum, size / 256.0 + 1e-4);
        }
    }
    run(MatmulPath::Vendor, OutSlice::AddF32(f32s.as_slice()));
    for (a, b) in f32s.as_slice().to_vec().unwrap().into_iter().zip(&product) {
        close(a, 2.0 * b, 1e-4);
    }
    let halves = DeviceVec::<u16>::new(&device, len).unwrap();
    run(MatmulPath::Vendor, OutSlice::Bf16(halves.as_slice()));
    for (a, &b) in halves.as_slice().to_vec().unwrap().into_iter().zip(&product) {
        assert_eq!(a, bf16(b));
    }
}

/// Few rows are multiplied without it, and all are where it is not wanted.
#[test]
fn the_library_is_asked_for_many_rows_only() {
    if passed_over("plain loops are the vendor's library") {
        return;
    }
    let (vendor, device) = vendor();
    for (quant, path, rows, asked) in [
        (Quant::BF16, MatmulPath::Auto, 8, false),
        (Quant::BF16, MatmulPath::Auto, 9, true),
        (Quant::Q8_0, MatmulPath::Auto, 32, false),
        (Quant::Q8_0, MatmulPath::Auto, 33, true),
        (Quant::BF16, MatmulPath::Own, 33, false),
        (Quant::Q8_0, MatmulPath::Own, 33, false),
        (Quant::BF16, MatmulPath::Gemm, 1, false),
        (Quant::BF16, MatmulPath::Vendor, 1, true),
    ] {
        let matrix = build(&device, quant, 32, &random_rows(quant, 2, 32, 1));
        let input = DeviceVec::<u16>::zeroed(&device, rows * 32).unwrap();
        let out = DeviceVec::<f32>::new(&device, rows * 2).unwrap();
        let scratch = DeviceVec::<u16>::new(&device, scratch_len(&matrix, 1)).unwrap();
        let to = OutSlice::F32(out.as_slice());
        matmul(&device, &matrix, input.as_slice(), rows, to, scratch.as_slice(), path).unwrap();
        let products = std::mem::take(&mut *vendor.asked.lock().unwrap());
        assert_eq!(products.len(), usize::from(asked), "{quant:?} {path:?} {rows}");
        assert!(out.as_slice().to_vec().unwrap().iter().all(|&x| x == 0.0));
    }
}
