//! Products with AVX2, AVX-512 and AMX.
//!
//! Coded formats multiply eight-bit activations (`coded`), floats multiply floats (`plain`). Within
//! either, sums run in one order over columns whatever the number of rows and the instruction set, so a row has the
//! same bits in any batch and on any of the three.

mod coded;
mod decode;
mod plain;
pub(super) mod quantize;

use std::cell::Cell;

use decode::{Bf16, F16, F32, Format, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};
use quantize::Quantized;

use super::panel::{HEIGHT, Shape};
use super::{Matrix, Segment};
use crate::pool::Shards;
use crate::{Isa, Pool, PoolError, Quant};

/// Rows of `x` below which weights are read front to back by few tasks, to please memory; above, arithmetic
/// is what takes the time.
const FEW: usize = 7;

/// Rows of `x` a task takes at once, at most: with the columns multiplied at a time they fit half of the
/// second-level cache.
const ROWS: usize = 192;

/// A multiple of every kernel's height: tasks of more rows have a multiple of it.
const TALL: usize = 48;

/// Panels a task takes: few enough to share out evenly, enough to reuse the block of `x` in the cache.
const PANELS: usize = 8;

thread_local! {
    /// Activations of the product that this thread is in, kept for the next one.
    static QUANTIZED: Cell<Quantized> = Cell::default();
}

/// `y = x * w^T`; shapes were checked by the caller, and the machine has `isa`, AVX2 or above.
pub(super) fn matmul(
    matrix: &Matrix,
    isa: Isa,
    pool: &Pool,
    x: &[f32],
    y: &mut [f32],
) -> Result<(), PoolError> {
    let mut quantized = QUANTIZED.take();
    let coded = |s: &Segment| Shape::of(s.layout.quant).is_some();
    let done = match matrix.segments.iter().any(coded) {
        true => quantized.set(isa, pool, x, matrix.cols),
        false => Ok(()),
    };
    let done = done.and_then(|()| multiply(matrix, isa, pool, x, &quantized, y));
    QUANTIZED.set(quantized);
    done
}

fn multiply(
    matrix: &Matrix,
    isa: Isa,
    pool: &Pool,
    x: &[f32],
    quantized: &Quantized,
    y: &mut [f32],
) -> Result<(), PoolError> {
    let m = x.len() / matrix.cols;
    let y = Shards::new(y);
    let panels: usize = matrix.segments.iter().map(Segment::panels).sum();
    // Eight tasks a worker even out the end of a job; four panels are four streams of memory.
    let share = match m < FEW {
        true => panels.div_ceil(8 * pool.threads()).next_multiple_of(4),
        false => PANELS.min(panels.div_ceil(2 * pool.threads())),
    };
    let row_blocks = m.div_ceil(ROWS);
    let rows = m.div_ceil(row_blocks);
    let rows = rows.next_multiple_of(if row_blocks > 1 { TALL } else { 1 });
    let shares: usize = matrix.segments.iter().map(|s| s.panels().div_ceil(share)).sum();
    pool.run(row_blocks * shares, |task| {
        let (first, mut share_index) = (task / shares * rows, task % shares);
        if first >= m {
            return;
        }
        for segment in &matrix.segments {
            let count = segment.panels().div_ceil(share);
            if share_index < count {
                let start = share_index * share;
                let part = Part {
                    isa,
                    cols: matrix.cols,
                    stride: matrix.rows,
                    segment,
                    panels: start..(start + share).min(segment.panels()),
                    rows: first..(first + rows).min(m),
                    x,
                    quantized,
                    y,
                };
                // SAFETY: the machine has the features; parts of different tasks are disjoint.
                unsafe { part.compute() };
                return;
            }
            share_index -= count;
        }
    })
}

/// What a task computes: some rows of `x` by some panels of a segment.
struct Part<'a> {
    isa: Isa,
    cols: usize,
    /// Row length of `y`.
    stride: usize,
    segment: &'a Segment,
    panels: std::ops::Range<usize>,
    /// Rows of `x` and `y`.
    rows: std::ops::Range<usize>,
    /// All of it.
    x: &'a [f32],
    /// All of it in eight bits, if any segment is coded.
    quantized: &'a Quantized,
    y: Shards<f32>,
}

impl Part<'_> {
    /// # Safety
    /// The machine has the part's instruction set, `y` has the rows and columns of this part, and nobody else
    /// touches them.
    unsafe fn compute(&self) {
        // SAFETY: the caller's promise; the decoder is that of the segment's format.
        unsafe {
            match self.segment.layout.quant {
                Quant::F32 => plain::part::<F32>(self),
                Quant::F16 => plain::part::<F16>(self),
                Quant::BF16 => plain::part::<Bf16>(self),
                Quant::Q4_0 => self.coded::<Q4_0>(),
                Quant::Q4_1 => self.coded::<Q4_1>(),
                Quant::Q5_0 => self.coded::<Q5_0>(),
                Quant::Q5_1 => self.coded::<Q5_1>(),
                Quant::Q8_0 => self.coded::<Q8_0>(),
                Quant::Q4_K => self.coded::<Q4K>(),
                Quant::Q5_K => self.coded::<Q5K>(),
                Quant::Q6_K => self.coded::<Q6K>(),
            }
        }
    }

    /// # Safety
    /// As [`Part::compute`], and `F` is the segment's format.
    unsafe fn coded<F: Format>(&self) {
        let x = self.quantized.rows(self.rows.clone(), self.cols);
        // SAFETY: the caller's promise.
        unsafe {
            match self.isa {
                Isa::Amx => coded::part::<F, coded::Amx>(self, x),
                Isa::Avx512 => coded::part::<F, coded::Avx512>(self, x),
                Isa::Avx2 | Isa::Scalar => coded::part::<F, coded::Avx2>(self, x),
            }
        }
    }

    /// Panel `index`, and how many of its rows are real.
    fn panel(&self, index: usize) -> (*const u8, usize) {
        let size = self.segment.layout.panel_bytes();
        let bytes = &self.segment.bytes()[index * size..][..size];
        (bytes.as_ptr(), HEIGHT.min(self.segment.rows - index * HEIGHT))
    }

    /// Where the sums of the part's row `row` and panel `index` go.
    ///
    /// # Safety
    /// `row` and `index` belong to this part; `height` is the panel's.
    #[expect(clippy::mut_from_ref, reason = "parts of different tasks are disjoint")]
    unsafe fn out(&self, row: usize, index: usize, height: usize) -> &mut [f32] {
        let column = self.segment.first_row + index * HEIGHT;
        // SAFETY: the caller's promise: inside y, and of this part alone.
        unsafe { self.y.slice((self.rows.start + row) * self.stride + column, height) }
    }
}
