//! Few rows (decode): keys and values are read once as they are kept and used by all heads of the group.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};

use super::dots::Element;
use super::{KeyTile, Scratch, TILE, dots, padded};
use crate::KvType;

/// Scores of `rows` rows against the keys of `tile`.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; dimensions are a multiple of 8; the scratch was started with them and `rows`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn scores(rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    // SAFETY: the caller's promise, and the elements are of the cache's type.
    unsafe {
        match tile.keys.kv.kind() {
            KvType::F16 => scores_of::<u16>(rows, tile, scratch),
            KvType::Int8 => scores_of::<i8>(rows, tile, scratch),
        }
    }
    scratch.scale_scores(rows, tile.count, |i| tile.keys.kv.key_scale(tile.head, tile.slot(i)));
}

/// # Safety
/// As [`scores`], and the cache keeps `E`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scores_of<E: Element>(rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    let dim = tile.dim();
    let mut elements = [std::ptr::null::<E>(); TILE];
    for (i, key) in elements[..tile.count].iter_mut().enumerate() {
        *key = tile.keys.kv.key_elements(tile.head, tile.slot(i)).cast();
    }
    let queries = scratch.queries[..rows * dim].as_ptr();
    let scores = scratch.scores[..rows * TILE].as_mut_ptr();
    // SAFETY: keys and queries have `dim` elements; each row has room for a tile of scores.
    unsafe { dots::rows(dim, rows, &elements[..tile.count], queries, scores) };
}

/// Adds the weighted values of `tile` to the sums of `rows` rows.
///
/// # Safety
/// As [`scores`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn accumulate(rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    scratch.scale_scores(rows, tile.count, |i| tile.keys.kv.value_scale(tile.head, tile.slot(i)));
    // SAFETY: the caller's promise, and the elements are of the cache's type.
    unsafe {
        match tile.keys.kv.kind() {
            KvType::F16 => accumulate_of::<u16>(rows, tile, scratch),
            KvType::Int8 => accumulate_of::<i8>(rows, tile, scratch),
        }
    }
}

/// # Safety
/// As [`accumulate`], and the cache keeps `E`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn accumulate_of<E: Element>(rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    let dim = tile.dim();
    let mut values = [std::ptr::null::<E>(); TILE];
    for (i, value) in values[..tile.count].iter_mut().enumerate() {
        *value = tile.keys.kv.value_elements(tile.head, tile.slot(i)).cast();
    }
    let values = &values[..tile.count];
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
                    (1, true) => weigh::<E, 1, 4>(values, d, weights, out, stride),
                    (2, true) => weigh::<E, 2, 4>(values, d, weights, out, stride),
                    (_, true) => weigh::<E, 3, 4>(values, d, weights, out, stride),
                    (1, false) => weigh::<E, 1, 1>(values, d, weights, out, stride),
                    (2, false) => weigh::<E, 2, 1>(values, d, weights, out, stride),
                    (_, false) => weigh::<E, 3, 1>(values, d, weights, out, stride),
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
unsafe fn weigh<E: Element, const R: usize, const W: usize>(
    values: &[*const E],
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
            let v: [__m256; W] = std::array::from_fn(|w| E::eight(value.add(d + 8 * w)));
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
