//! Inputs and outputs lie directly before, or directly after, a page that may not be touched: a kernel
//! that reads or writes one byte too far dies here.
#![cfg(unix)]
#![expect(clippy::print_stdout, reason = "a test says what it could not test")]

use std::ops::{Deref, DerefMut};

use pith_kernels::activation::{Activation, gated};
use pith_kernels::attention::{BidirectionalShape, attention, bidirectional};
use pith_kernels::norm::rms_norm;
use pith_kernels::{
    AttentionShape, Isa, KvLayer, KvType, MatrixBuilder, Pool, Quant, SequenceView,
};

const PAGE: usize = 4096;

/// Floats whose first or last byte borders on a forbidden page.
struct Guarded {
    map: *mut u8,
    pages: usize,
    start: *mut f32,
    len: usize,
}

impl Guarded {
    fn new(len: usize, at_end: bool) -> Self {
        let size = len * size_of::<f32>();
        let pages = size.div_ceil(PAGE).max(1) + 2;
        // SAFETY: a fresh private mapping; the first and last page lose all access, and `start` leaves `len`
        // floats between them.
        unsafe {
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let map = libc::mmap(std::ptr::null_mut(), pages * PAGE, access, flags, -1, 0);
            assert_ne!(map, libc::MAP_FAILED);
            let map = map.cast::<u8>();
            let last = map.add((pages - 1) * PAGE);
            assert_eq!(libc::mprotect(map.cast(), PAGE, libc::PROT_NONE), 0);
            assert_eq!(libc::mprotect(last.cast(), PAGE, libc::PROT_NONE), 0);
            let start = if at_end { last.sub(size) } else { map.add(PAGE) };
            Self { map, pages, start: start.cast(), len }
        }
    }

    /// Small numbers that are no constant.
    fn filled(len: usize, at_end: bool) -> Self {
        let mut this = Self::new(len, at_end);
        this.iter_mut().enumerate().for_each(|(i, x)| *x = (i % 17) as f32 * 0.1 - 0.8);
        this
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`.
        unsafe { libc::munmap(self.map.cast(), self.pages * PAGE) };
    }
}

impl Deref for Guarded {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: `len` floats, zeroed by the system, owned by this mapping.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }
    }
}

impl DerefMut for Guarded {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts_mut(self.start, self.len) }
    }
}

/// Every set this machine has, and both ends of a buffer.
fn ways() -> impl Iterator<Item = (Isa, bool)> {
    println!("fastest set here: {}; those above it are not tested", Isa::detect().name());
    Isa::available().flat_map(|isa| [(isa, false), (isa, true)])
}

#[test]
fn products_stay_inside() {
    let pool = Pool::new(1);
    for quant in Quant::ALL {
        let cols = if quant.block_len() == 1 { 37 } else { quant.block_len() };
        for rows in [1, 15, 33] {
            let mut builder = MatrixBuilder::new(cols);
            let bytes = vec![0x11; quant.row_bytes(cols).unwrap() * rows];
            builder.segment(quant).unwrap().push_rows(&bytes).unwrap();
            let matrix = builder.finish();
            for (isa, at_end) in ways() {
                for m in [0, 1, 2, 3, 5, 7, 16, 19] {
                    let x = Guarded::filled(m * cols, at_end);
                    let mut y = Guarded::new(m * rows, at_end);
                    matrix.matmul(isa, &pool, &x, &mut y).unwrap();
                    assert!(y.iter().all(|y| y.is_finite()), "{quant:?}");
                }
            }
        }
    }
}

#[test]
fn rows_stay_inside() {
    let pool = Pool::new(1);
    for (isa, at_end) in ways() {
        for width in [1, 7, 8, 13, 64, 577] {
            let x = Guarded::filled(3 * width, at_end);
            let weight = Guarded::filled(width, at_end);
            let mut out = Guarded::new(3 * width, at_end);
            rms_norm(isa, &pool, &x, &weight, 1e-5, &mut out).unwrap();
            let gate_up = Guarded::filled(6 * width, at_end);
            for activation in [Activation::Silu, Activation::GeluTanh] {
                gated(isa, &pool, activation, &gate_up, width, &mut out).unwrap();
            }
        }
    }
}

#[test]
fn attention_stays_inside() {
    let pool = Pool::new(1);
    let kinds = |way| KvType::ALL.map(|kind| (kind, way));
    for (kind, (isa, at_end)) in ways().flat_map(kinds) {
        for (heads, kv_heads, head_dim) in [(9, 3, 64), (4, 1, 256), (5, 1, 20), (1, 1, 40)] {
            let (scale, width) = (0.1, kv_heads * head_dim);
            let shape =
                AttentionShape { heads, kv_heads, head_dim, scale, window: None, softcap: None };
            let mut kv = KvLayer::new(kind, kv_heads, head_dim, 320);
            for rows in [1, 2, 19] {
                let context = 290 + rows;
                let slots: Vec<u32> = (0..context as u32).collect();
                let x = Guarded::filled(context * 2 * width, at_end);
                kv.write(isa, &pool, &x, 2 * width, 0, width, &slots).unwrap();
                let blocks: Vec<u32> = (0..20).collect();
                let stride = heads * head_dim;
                let q = Guarded::filled(rows * stride, at_end);
                let mut out = Guarded::new(rows * stride, at_end);
                let view = SequenceView { first_row: 0, rows, context, blocks: &blocks, bias: &[] };
                attention(isa, &pool, &shape, &kv, 16, &q, stride, &[view], &mut out).unwrap();
                assert!(out.iter().all(|out| out.is_finite()));
            }
        }
    }
}

#[test]
fn encoders_attention_stays_inside() {
    let pool = Pool::new(1);
    for (isa, at_end) in ways() {
        for (heads, head_dim) in [(12, 32), (2, 16), (3, 20)] {
            let shape = BidirectionalShape { heads, head_dim, scale: 0.1 };
            for lengths in [&[1][..], &[17, 1, 33], &[130]] {
                let rows: usize = lengths.iter().sum();
                let qkv = Guarded::filled(rows * 3 * heads * head_dim, at_end);
                let mut out = Guarded::new(rows * heads * head_dim, at_end);
                bidirectional(isa, &pool, shape, &qkv, lengths, &mut out).unwrap();
                assert!(out.iter().all(|out| out.is_finite()));
            }
        }
    }
}
