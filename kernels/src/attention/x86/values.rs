//! Weighted sums of values, in ascending order of keys, for decode and prefill alike.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};

use super::element::Element;
use super::{FEW, KeyTile, Scratch, TILE, at_once, padded};
use crate::tile::{Product, STRIP};
use crate::{Isa, KvType};

/// Adds the weighted values of `tile` to the sums of `rows` rows.
///
/// # Safety
/// The machine has `isa`, AVX2, FMA and F16C at least; the scratch was started with the dimensions and `rows`, and has
/// their weights.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn accumulate(isa: Isa, rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    scratch
        .scale_scores(rows, tile.count(), |i| tile.keys.kv.value_scale(tile.head, tile.slots[i]));
    // SAFETY: the caller's promise, and the elements are of the cache's type.
    unsafe {
        match tile.keys.kv.kind() {
            KvType::F16 => accumulate_of::<u16>(isa, rows, tile, scratch),
            KvType::Int8 => accumulate_of::<i8>(isa, rows, tile, scratch),
        }
    }
}

/// Few rows take the values as they are kept; for more these are converted once and used by all of them.
///
/// # Safety
/// As [`accumulate`], and the cache keeps `E`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn accumulate_of<E: Element>(
    isa: Isa,
    rows: usize,
    tile: KeyTile<'_>,
    scratch: &mut Scratch,
) {
    let (dim, count) = (tile.dim(), tile.count());
    let width = padded(dim);
    // SAFETY: the caller's promise; the scratch holds `rows` weights and sums, and `count` values.
    unsafe {
        if rows <= FEW && dim.is_multiple_of(8) {
            return few::<E>(rows, tile, scratch);
        }
        widen::<E>(tile, &mut scratch.values);
        for first in (0..width).step_by(STRIP) {
            let product = Product {
                rows,
                depth: count,
                cols: STRIP.min(width - first),
                a: scratch.scores.as_ptr(),
                a_stride: TILE,
                b: scratch.values[first * TILE..].as_ptr(),
                b_stride: STRIP,
                c: scratch.sums[first..].as_mut_ptr(),
                c_stride: width,
                fresh: false,
            };
            product.compute(isa);
        }
    }
}

/// Few rows: values are read once as they are kept and used by all heads of the group.
///
/// # Safety
/// As [`accumulate`]; dimensions are a multiple of 8, and the cache keeps `E`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn few<E: Element>(rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    let dim = tile.dim();
    let mut values = [std::ptr::null::<E>(); TILE];
    for (value, &slot) in values.iter_mut().zip(tile.slots) {
        *value = tile.keys.kv.value_elements(tile.head, slot).cast();
    }
    let values = &values[..tile.count()];
    let mut row = 0;
    while row < rows {
        let taken = at_once(rows - row);
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

/// Writes the values of `tile` to `out`, `[dim / STRIP][TILE][STRIP]`, zeros past the last dimension.
///
/// # Safety
/// The machine has AVX2 and F16C; the cache keeps `E`.
#[target_feature(enable = "avx2,f16c")]
unsafe fn widen<E: Element>(tile: KeyTile<'_>, out: &mut [f32]) {
    let dim = tile.dim();
    for (i, &slot) in tile.slots.iter().enumerate() {
        let value = tile.keys.kv.value_elements(tile.head, slot).cast::<E>();
        for first in (0..dim).step_by(STRIP) {
            let out = &mut out[first * TILE + i * STRIP..][..STRIP];
            let len = STRIP.min(dim - first);
            // SAFETY: the value has `len` elements from `first` on.
            unsafe {
                let value = value.add(first);
                for d in (0..len / 8 * 8).step_by(8) {
                    _mm256_storeu_ps(out[d..].as_mut_ptr(), E::eight(value.add(d)));
                }
                let tail = len / 8 * 8;
                for (d, out) in (tail..len).zip(&mut out[tail..]) {
                    *out = (*value.add(d)).float();
                }
            }
            out[len..].fill(0.0);
        }
    }
}
