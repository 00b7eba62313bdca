//! Scores: each is the sum of its products in ascending order of dimensions, for decode and prefill alike.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_setzero_ps, _mm256_storeu_ps,
};

use super::element::Element;
use super::{FEW, KeyTile, Scratch, TILE, at_once};
use crate::kv::LANES;
use crate::tile::{Product, STRIP, WIDTH};
use crate::{Isa, KvType};

/// Leaves the scores of `rows` rows against the keys of `tile` in the scratch. What follows the last key is undefined.
///
/// # Safety
/// The machine has `isa`, AVX2 and F16C at least; the scratch was started with the dimensions and `rows`, and has
/// their queries.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn scores(isa: Isa, rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    // SAFETY: the caller's promise, and the elements are of the cache's type.
    unsafe {
        match tile.keys.kv.kind() {
            KvType::F16 => scores_of::<u16>(isa, rows, tile, scratch),
            KvType::Int8 => scores_of::<i8>(isa, rows, tile, scratch),
        }
    }
    scratch.scale_scores(rows, tile.count(), |i| tile.keys.kv.key_scale(tile.head, tile.slots[i]));
}

/// Few rows take the keys as they are kept; for more these are converted once and used by all of them.
///
/// # Safety
/// As [`scores`], and the cache keeps `E`.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn scores_of<E: Element>(isa: Isa, rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    let dim = tile.dim();
    // SAFETY: the caller's promise; the scratch holds `rows` queries of `dim`, as many rows of TILE scores, and strips
    // of `dim` rows.
    unsafe {
        if rows <= FEW && tile.grouped() {
            return few::<E>(rows, tile, scratch);
        }
        widen::<E>(tile, &mut scratch.keys[..dim * TILE]);
        for first in (0..tile.count()).step_by(STRIP) {
            let product = Product {
                rows,
                depth: dim,
                cols: (tile.count() - first).next_multiple_of(WIDTH).min(STRIP),
                a: scratch.queries.as_ptr(),
                a_stride: dim,
                b: scratch.keys[dim * first..].as_ptr(),
                b_stride: STRIP,
                c: scratch.scores[first..].as_mut_ptr(),
                c_stride: TILE,
                fresh: true,
            };
            product.compute(isa);
        }
    }
}

/// Few rows: keys are read once as they are kept and used by all heads of the group.
///
/// # Safety
/// As [`scores`]; the cache keeps `E`, in groups.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn few<E: Element>(rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    let dim = tile.dim();
    let mut groups = [std::ptr::null::<E>(); TILE / LANES];
    let groups = &mut groups[..tile.count().div_ceil(LANES)];
    for (i, group) in groups.iter_mut().enumerate() {
        *group = tile.group(i * LANES).cast();
    }
    let mut row = 0;
    while row < rows {
        let taken = at_once(rows - row);
        let queries = scratch.queries[row * dim..].as_ptr();
        let mut at = 0;
        while at < groups.len() {
            let out = scratch.scores[row * TILE + at * LANES..].as_mut_ptr();
            let groups = &groups[at..];
            // SAFETY: there are `taken` rows of queries and of TILE scores, and as many groups of `dim` rows as are
            // taken.
            at += unsafe {
                match (taken, groups) {
                    (1, &[a, b, c, d]) => score::<E, 1, 4>(dim, [a, b, c, d], queries, out),
                    (1, &[a, ..]) => score::<E, 1, 1>(dim, [a], queries, out),
                    (2, &[a, b, ..]) => score::<E, 2, 2>(dim, [a, b], queries, out),
                    (2, &[a, ..]) => score::<E, 2, 1>(dim, [a], queries, out),
                    (_, &[a, b, ..]) => score::<E, 3, 2>(dim, [a, b], queries, out),
                    (_, &[a, ..]) => score::<E, 3, 1>(dim, [a], queries, out),
                    (_, []) => break,
                }
            };
        }
        row += taken;
    }
}

/// `R` rows by `G` groups; says how many groups that is.
///
/// # Safety
/// The machine has AVX2, FMA and F16C. Groups have `dim` rows of sixteen elements, queries are `dim` long, rows of
/// `out` have room for sixteen floats of each group.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn score<E: Element, const R: usize, const G: usize>(
    dim: usize,
    groups: [*const E; G],
    queries: *const f32,
    out: *mut f32,
) -> usize {
    let mut sums: [[[__m256; 2]; G]; R] = [[[_mm256_setzero_ps(); 2]; G]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for d in 0..dim {
            let q: [__m256; R] =
                std::array::from_fn(|i| _mm256_broadcast_ss(&*queries.add(i * dim + d)));
            for (g, group) in groups.iter().enumerate() {
                for half in 0..2 {
                    let keys = E::eight(group.add(d * LANES + 8 * half));
                    for (sums, &q) in sums.iter_mut().zip(&q) {
                        sums[g][half] = _mm256_fmadd_ps(q, keys, sums[g][half]);
                    }
                }
            }
        }
        for (i, sums) in sums.iter().enumerate() {
            for (at, &sum) in sums.as_flattened().iter().enumerate() {
                _mm256_storeu_ps(out.add(i * TILE + 8 * at), sum);
            }
        }
    }
    G
}

/// Writes the keys of `tile` to `out`, `[TILE / STRIP][dim][STRIP]`, sixteen at a time.
///
/// # Safety
/// The machine has AVX2 and F16C; the cache keeps `E`.
#[target_feature(enable = "avx2,f16c")]
unsafe fn widen<E: Element>(tile: KeyTile<'_>, out: &mut [f32]) {
    let dim = tile.dim();
    let grouped = tile.grouped();
    for first in (0..tile.count()).step_by(LANES) {
        let out = &mut out[first / STRIP * STRIP * dim + first % STRIP..];
        if grouped {
            let group = tile.group(first).cast::<E>();
            for d in 0..dim {
                let out: &mut [f32] = &mut out[d * STRIP..][..LANES];
                // SAFETY: a group has sixteen elements of each dimension, and `out` as many floats.
                unsafe { E::sixteen(group.add(d * LANES), out.as_mut_ptr()) };
            }
            continue;
        }
        for i in 0..LANES.min(tile.count() - first) {
            let (group, lane) = (tile.group(first + i).cast::<E>(), tile.slots[first + i] % LANES);
            for d in 0..dim {
                // SAFETY: as above.
                out[d * STRIP + i] = unsafe { *group.add(d * LANES + lane) }.float();
            }
        }
    }
}
