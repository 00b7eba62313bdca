//! Products with AVX2: weights leave their bits in registers or in a cache-sized scratch.
//!
//! Both ways rebuild the very weights of the oracle and add products in ascending order of `k` by
//! fused multiply-adds, so which one runs cannot be seen in the result.

mod decode;
mod fused;

use decode::{Bf16, Coded, Decode, F16, F32, Q4_0, Q4_1, Q4K, Q5_0, Q5_1, Q5K, Q6K, Q8_0};

use super::panel::HEIGHT;
use super::{Matrix, Segment};
use crate::pool::Shards;
use crate::{Pool, PoolError, Quant, tile};

/// Rows of `x` from which a panel is dequantised to scratch first: below, decoding in registers
/// for every few rows costs less than the trip through the cache.
const SCRATCH_FROM: usize = 13;

/// Columns dequantised at a time: 16 KiB of scratch, half of the first-level cache. A multiple of
/// every superblock.
const DEPTH: usize = 256;

/// Rows of `x` a task takes at once: with `DEPTH` columns 192 KiB, under half of the second-level cache.
const ROWS: usize = 192;

/// Panels a task takes: few enough to share out evenly, enough to reuse the block of `x` in the cache.
const PANELS: usize = 8;

/// `y = x * w^T`; shapes were checked by the caller, and the machine has AVX2, FMA and F16C.
pub(super) fn matmul(
    matrix: &Matrix,
    pool: &Pool,
    x: &[f32],
    y: &mut [f32],
) -> Result<(), PoolError> {
    let m = x.len() / matrix.cols;
    let y = Shards::new(y);
    let panels: usize = matrix.segments.iter().map(Segment::panels).sum();
    // Eight tasks a worker even out the end of a job; four panels are four streams of memory.
    let share = match m < SCRATCH_FROM {
        true => panels.div_ceil(8 * pool.threads()).next_multiple_of(4),
        false => PANELS.min(panels.div_ceil(2 * pool.threads())),
    };
    let row_blocks = if m < SCRATCH_FROM { 1 } else { m.div_ceil(ROWS) };
    let rows = m.div_ceil(row_blocks).next_multiple_of(tile::HEIGHT);
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
                    cols: matrix.cols,
                    stride: matrix.rows,
                    segment,
                    panels: start..(start + share).min(segment.panels()),
                    first_row: first,
                    x: &x[first * matrix.cols..(first + rows).min(m) * matrix.cols],
                    y,
                };
                // SAFETY: the machine has the features; parts of different tasks are disjoint.
                unsafe { part.compute(m) };
                return;
            }
            share_index -= count;
        }
    })
}

/// What a task computes: some rows of `x` by some panels of a segment.
struct Part<'a> {
    cols: usize,
    /// Row length of `y`.
    stride: usize,
    segment: &'a Segment,
    panels: std::ops::Range<usize>,
    /// Row of `y` that the first row of `x` goes to.
    first_row: usize,
    x: &'a [f32],
    y: Shards<f32>,
}

impl Part<'_> {
    /// # Safety
    /// The machine has AVX2, FMA and F16C, `y` has the rows and columns of this part, and nobody else
    /// touches them.
    unsafe fn compute(&self, m: usize) {
        let quant = self.segment.layout.quant;
        // SAFETY: the caller's promise; the decoder is that of the segment's format.
        unsafe {
            match quant {
                Quant::F32 => self.choose::<F32>(m),
                Quant::F16 => self.choose::<F16>(m),
                Quant::BF16 => self.choose::<Bf16>(m),
                Quant::Q4_0 => self.choose::<Coded<Q4_0>>(m),
                Quant::Q4_1 => self.choose::<Coded<Q4_1>>(m),
                Quant::Q5_0 => self.choose::<Coded<Q5_0>>(m),
                Quant::Q5_1 => self.choose::<Coded<Q5_1>>(m),
                Quant::Q8_0 => self.choose::<Coded<Q8_0>>(m),
                Quant::Q4_K => self.choose::<Coded<Q4K>>(m),
                Quant::Q5_K => self.choose::<Coded<Q5K>>(m),
                Quant::Q6_K => self.choose::<Coded<Q6K>>(m),
            }
        }
    }

    /// # Safety
    /// As [`Part::compute`], and `D` decodes the segment's format.
    unsafe fn choose<D: Decode>(&self, m: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            if m < SCRATCH_FROM { fused::part::<D>(self) } else { self.through_scratch::<D>() }
        }
    }

    fn rows(&self) -> usize {
        self.x.len() / self.cols
    }

    /// Panel `index`, and how many of its rows are real.
    fn panel(&self, index: usize) -> (*const u8, usize) {
        let size = self.segment.layout.panel_bytes();
        let bytes = &self.segment.bytes()[index * size..][..size];
        (bytes.as_ptr(), HEIGHT.min(self.segment.rows - index * HEIGHT))
    }

    /// Where the sums of row `row` and panel `index` go.
    ///
    /// # Safety
    /// `row` and `index` belong to this part; `height` is the panel's.
    #[expect(clippy::mut_from_ref, reason = "parts of different tasks are disjoint")]
    unsafe fn out(&self, row: usize, index: usize, height: usize) -> &mut [f32] {
        let column = self.segment.first_row + index * HEIGHT;
        // SAFETY: the caller's promise: inside y, and of this part alone.
        unsafe { self.y.slice((self.first_row + row) * self.stride + column, height) }
    }

    /// Dequantises a panel's columns to scratch, `DEPTH` at a time, and multiplies all rows by it.
    ///
    /// # Safety
    /// As [`Part::choose`].
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn through_scratch<D: Decode>(&self) {
        #[repr(align(64))]
        struct Scratch<const N: usize>(std::mem::MaybeUninit<[f32; N]>);
        let mut weights = Scratch::<{ DEPTH * HEIGHT }>(std::mem::MaybeUninit::uninit());
        let weights = weights.0.as_mut_ptr().cast::<f32>();
        let rows = self.rows();
        for start in (0..self.cols).step_by(DEPTH) {
            let depth = DEPTH.min(self.cols - start);
            for index in self.panels.clone() {
                let (panel, height) = self.panel(index);
                // SAFETY: `depth * 16` floats fit the scratch; the columns exist in the panel.
                unsafe { D::columns(panel, start, depth, weights) };
                let x = self.x[start..].as_ptr();
                // SAFETY: x holds `rows` rows of `cols`; y's cells are ours, `height` of them a row.
                unsafe {
                    if height == HEIGHT {
                        let y = self.out(0, index, height).as_mut_ptr();
                        let fresh = start == 0;
                        tile::multiply(
                            rows,
                            depth,
                            x,
                            self.cols,
                            weights,
                            HEIGHT,
                            y,
                            self.stride,
                            fresh,
                        );
                    } else {
                        self.narrow_panel(index, height, start, depth, weights);
                    }
                }
            }
        }
    }

    /// The last panel of a segment: sums pass through a buffer, for y has no room for the padding.
    ///
    /// # Safety
    /// As [`Part::through_scratch`]; `weights` holds `depth` columns.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn narrow_panel(
        &self,
        index: usize,
        height: usize,
        start: usize,
        depth: usize,
        weights: *const f32,
    ) {
        for first in (0..self.rows()).step_by(tile::HEIGHT) {
            let rows = tile::HEIGHT.min(self.rows() - first);
            let mut sums = [[0.0f32; HEIGHT]; tile::HEIGHT];
            // SAFETY: as the caller's; `sums` has room for a tile.
            unsafe {
                if start > 0 {
                    for (i, sums) in sums[..rows].iter_mut().enumerate() {
                        sums[..height].copy_from_slice(self.out(first + i, index, height));
                    }
                }
                let x = self.x[first * self.cols + start..].as_ptr();
                let c = sums.as_mut_ptr().cast();
                tile::multiply(rows, depth, x, self.cols, weights, HEIGHT, c, HEIGHT, false);
                for (i, sums) in sums[..rows].iter().enumerate() {
                    self.out(first + i, index, height).copy_from_slice(&sums[..height]);
                }
            }
        }
    }
}
