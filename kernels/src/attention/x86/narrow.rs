//! Few rows (decode): keys and values are read once from f16 and used by all heads of the group.

use std::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm256_broadcast_ss, _mm256_cvtph_ps, _mm256_fmadd_ps,
    _mm256_loadu_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::{Scratch, TILE, dots, padded};
use crate::attention::Keys;

/// Scores of `rows` rows against the keys at `start..start + count`.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; `dim` is a multiple of 8; the scratch was started with `dim` and `rows`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn scores(
    dim: usize,
    rows: usize,
    keys: Keys<'_>,
    head: usize,
    start: usize,
    count: usize,
    scratch: &mut Scratch,
) {
    for first in (0..count).step_by(4) {
        // Past the end the last key is scored again; those scores are hidden by the softmax.
        let keys: [*const u16; 4] = std::array::from_fn(|i| {
            keys.kv.keys(head, keys.slot(start + (first + i).min(count - 1)), 1).as_ptr()
        });
        let queries = scratch.queries[..rows * dim].as_ptr();
        let scores = scratch.scores[..rows * TILE][first..].as_mut_ptr();
        // SAFETY: keys and queries have `dim` elements; a tile has room for four scores of each row.
        unsafe { dots::rows(dim, rows, keys, queries, scores) };
    }
}

/// Adds the weighted values at `start..start + count` to the sums of `rows` rows.
///
/// # Safety
/// As [`scores`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn accumulate(
    dim: usize,
    rows: usize,
    keys: Keys<'_>,
    head: usize,
    start: usize,
    count: usize,
    scratch: &mut Scratch,
) {
    let mut values = [std::ptr::null::<u16>(); TILE];
    for (i, value) in values[..count].iter_mut().enumerate() {
        *value = keys.kv.values(head, keys.slot(start + i), 1).as_ptr();
    }
    let values = &values[..count];
    let mut row = 0;
    while row < rows {
        let taken = match rows - row {
            1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
        let mut d = 0;
        while d < dim {
            let weights = scratch.scores[row * TILE..].as_ptr();
            let out = scratch.sums[row * padded(dim) + d..].as_mut_ptr();
            let stride = padded(dim);
            // SAFETY: each value has `dim` elements, of which the kernel reads 32 or 8 from `d` on; there
            // are `taken` rows of weights and sums.
            unsafe {
                match (taken, dim - d >= 32) {
                    (1, true) => weigh::<1, 4>(values, d, weights, out, stride),
                    (2, true) => weigh::<2, 4>(values, d, weights, out, stride),
                    (_, true) => weigh::<3, 4>(values, d, weights, out, stride),
                    (1, false) => weigh::<1, 1>(values, d, weights, out, stride),
                    (2, false) => weigh::<2, 1>(values, d, weights, out, stride),
                    (_, false) => weigh::<3, 1>(values, d, weights, out, stride),
                }
            }
            d += if dim - d >= 32 { 32 } else { 8 };
        }
        row += taken;
    }
}

/// `R` rows by `8 W` dimensions from `d` on.
///
/// # Safety
/// As [`accumulate`].
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn weigh<const R: usize, const W: usize>(
    values: &[*const u16],
    d: usize,
    weights: *const f32,
    out: *mut f32,
    stride: usize,
) {
    let mut sums = [[_mm256_setzero_ps(); W]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for (i, sums) in sums.iter_mut().enumerate() {
            for (w, sum) in sums.iter_mut().enumerate() {
                *sum = _mm256_loadu_ps(out.add(i * stride + 8 * w));
            }
        }
        for (at, value) in values.iter().enumerate() {
            let v: [__m256; W] = std::array::from_fn(|w| {
                _mm256_cvtph_ps(_mm_loadu_si128(value.add(d + 8 * w).cast()))
            });
            for (i, sums) in sums.iter_mut().enumerate() {
                let weight = _mm256_broadcast_ss(&*weights.add(i * TILE + at));
                for (sum, &v) in sums.iter_mut().zip(&v) {
                    *sum = _mm256_fmadd_ps(weight, v, *sum);
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (w, &sum) in sums.iter().enumerate() {
                _mm256_storeu_ps(out.add(i * stride + 8 * w), sum);
            }
        }
    }
}
