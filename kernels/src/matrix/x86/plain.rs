//! Products of float weights and activations, sums in ascending order of `k` by fused multiply-adds.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::Part;
use super::decode::Plain;
use crate::matrix::panel::HEIGHT;
use crate::tile::{self, Product};

/// Rows of `x` from which a panel is converted first: below, decoding in registers for every few rows
/// costs less than the trip through the cache.
const SCRATCH_FROM: usize = 13;

/// Columns converted at a time: 16 KiB of scratch, half of the first-level cache.
const DEPTH: usize = 256;

/// Most rows whose sums fit the registers beside a column of weights.
const TALL: usize = tile::HEIGHT;

/// Computes a part in a format of floats.
///
/// # Safety
/// As [`Part::compute`], and `D` decodes the segment's format.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn part<D: Plain>(part: &Part<'_>) {
    // SAFETY: the caller's promise.
    unsafe {
        if part.rows.len() < SCRATCH_FROM {
            direct::<D>(part);
        } else {
            through_scratch::<D>(part);
        }
    }
}

/// Row `row` of the part, and all that follows.
fn row<'a>(part: &Part<'a>, row: usize) -> &'a [f32] {
    &part.x[(part.rows.start + row) * part.cols..]
}

/// Few rows: weights are decoded in registers and used at once.
///
/// # Safety
/// As [`part`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn direct<D: Plain>(part: &Part<'_>) {
    let rows = part.rows.len();
    let height = rows.div_ceil(rows.div_ceil(TALL));
    // One row leaves registers for four panels, two rows for two: more sums in flight hide the
    // latency of the adds, and more streams keep memory busy.
    let streams = match height {
        1 => 4,
        2 => 2,
        _ => 1,
    };
    for index in part.panels.clone().step_by(streams) {
        for first in (0..rows).step_by(height) {
            // SAFETY: the caller's promise; row and panel belong to the part.
            unsafe {
                match height {
                    1 => block::<D, 1, 4>(part, first, index),
                    2 => block::<D, 2, 2>(part, first, index),
                    3 | 4 => block::<D, 4, 1>(part, first, index),
                    _ => block::<D, 6, 1>(part, first, index),
                }
            }
        }
    }
}

/// Up to `M` rows by `P` panels. Where the part ends before, the last row or panel is computed again
/// and not written: that is rare, and a kernel for every remainder would be slow to build.
///
/// # Safety
/// As [`part`]; row `first` and panel `index` belong to the part.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn block<D: Plain, const M: usize, const P: usize>(
    part: &Part<'_>,
    first: usize,
    index: usize,
) {
    let cols = part.cols;
    let rows = M.min(part.rows.len() - first);
    let count = P.min(part.panels.end - index);
    let panels: [*const u8; P] = std::array::from_fn(|p| part.panel(index + p.min(count - 1)).0);
    let x: [*const f32; M] = std::array::from_fn(|i| row(part, first + i.min(rows - 1)).as_ptr());
    let mut sums: [[[__m256; 2]; P]; M] = [[[_mm256_setzero_ps(); 2]; P]; M];
    for k in 0..cols {
        for (p, &panel) in panels.iter().enumerate() {
            // SAFETY: the column lies in every panel and in every row of x.
            unsafe {
                let column = D::column(panel, k);
                for (sums, x) in sums.iter_mut().zip(&x) {
                    let x = _mm256_broadcast_ss(&*x.add(k));
                    sums[p][0] = _mm256_fmadd_ps(x, column[0], sums[p][0]);
                    sums[p][1] = _mm256_fmadd_ps(x, column[1], sums[p][1]);
                }
            }
        }
    }
    for (i, sums) in sums[..rows].iter().enumerate() {
        for (p, sums) in sums[..count].iter().enumerate() {
            let height = part.panel(index + p).1;
            let mut buffer = [0.0f32; HEIGHT];
            // SAFETY: the buffer holds 16 floats; the row and panel belong to the part.
            unsafe {
                _mm256_storeu_ps(buffer.as_mut_ptr(), sums[0]);
                _mm256_storeu_ps(buffer.as_mut_ptr().add(8), sums[1]);
                part.out(first + i, index + p, height).copy_from_slice(&buffer[..height]);
            }
        }
    }
}

/// Many rows: converts a panel's columns to scratch, `DEPTH` at a time, and multiplies all rows by it.
///
/// # Safety
/// As [`part`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn through_scratch<D: Plain>(part: &Part<'_>) {
    #[repr(align(64))]
    struct Scratch<const N: usize>(std::mem::MaybeUninit<[f32; N]>);
    let mut weights = Scratch::<{ DEPTH * HEIGHT }>(std::mem::MaybeUninit::uninit());
    let weights = weights.0.as_mut_ptr().cast::<f32>();
    let rows = part.rows.len();
    for start in (0..part.cols).step_by(DEPTH) {
        let depth = DEPTH.min(part.cols - start);
        for index in part.panels.clone() {
            let (panel, height) = part.panel(index);
            // SAFETY: `depth * 16` floats fit the scratch; the columns exist in the panel.
            unsafe { D::columns(panel, start, depth, weights) };
            let x = row(part, 0)[start..].as_ptr();
            // SAFETY: x holds `rows` rows of `cols`; y's cells are ours, `height` of them a row.
            unsafe {
                if height == HEIGHT {
                    let y = part.out(0, index, height).as_mut_ptr();
                    Product {
                        rows,
                        depth,
                        cols: HEIGHT,
                        a: x,
                        a_stride: part.cols,
                        b: weights,
                        b_stride: HEIGHT,
                        c: y,
                        c_stride: part.stride,
                        fresh: start == 0,
                    }
                    .compute(part.isa);
                } else {
                    narrow_panel(part, index, height, start, depth, weights);
                }
            }
        }
    }
}

/// The last panel of a segment: sums pass through a buffer, for y has no room for the padding.
///
/// # Safety
/// As [`through_scratch`]; `weights` holds `depth` columns.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn narrow_panel(
    part: &Part<'_>,
    index: usize,
    height: usize,
    start: usize,
    depth: usize,
    weights: *const f32,
) {
    for first in (0..part.rows.len()).step_by(tile::HEIGHT) {
        let rows = tile::HEIGHT.min(part.rows.len() - first);
        let mut sums = [[0.0f32; HEIGHT]; tile::HEIGHT];
        // SAFETY: as the caller's; `sums` has room for a tile.
        unsafe {
            if start > 0 {
                for (i, sums) in sums[..rows].iter_mut().enumerate() {
                    sums[..height].copy_from_slice(part.out(first + i, index, height));
                }
            }
            Product {
                rows,
                depth,
                cols: HEIGHT,
                a: row(part, first)[start..].as_ptr(),
                a_stride: part.cols,
                b: weights,
                b_stride: HEIGHT,
                c: sums.as_mut_ptr().cast(),
                c_stride: HEIGHT,
                fresh: false,
            }
            .compute(part.isa);
            for (i, sums) in sums[..rows].iter().enumerate() {
                part.out(first + i, index, height).copy_from_slice(&sums[..height]);
            }
        }
    }
}
