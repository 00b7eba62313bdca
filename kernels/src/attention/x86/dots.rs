//! Scores: dot products of queries and keys, the same sums in the same order from keys as they are kept and from
//! converted ones.

use std::arch::x86_64::{
    __m256, _mm_add_ps, _mm_loadl_epi64, _mm_loadu_si128, _mm_storeu_ps, _mm256_castps256_ps128,
    _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps, _mm256_cvtph_ps, _mm256_extractf128_ps,
    _mm256_fmadd_ps, _mm256_hadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
};

use super::TILE;

/// An element of a key or a value.
pub(super) trait Element: Copy {
    /// Eight of them as floats.
    ///
    /// # Safety
    /// The machine has AVX2 and F16C, and eight elements are readable at `at`.
    unsafe fn eight(at: *const Self) -> __m256;
}

impl Element for u16 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight(at: *const u16) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }
}

impl Element for i8 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight(at: *const i8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))) }
    }
}

impl Element for f32 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight(at: *const f32) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_loadu_ps(at) }
    }
}

/// Scores of `rows` rows of queries against the keys, up to a tile of them; those of row `i` go to `scores + TILE i`.
/// Keys are scored in fours: where they end before, the last is scored again, and its scores follow.
///
/// Some rows go over all keys before the next do: a tile of keys stays in the first-level cache, all queries would not.
///
/// # Safety
/// The machine has AVX2, FMA and F16C. There are keys; each points at `width` elements, a multiple of 8, `queries` at
/// `rows * width`; a tile of scores of every row is writable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn rows<E: Element>(
    width: usize,
    rows: usize,
    keys: &[*const E],
    queries: *const f32,
    scores: *mut f32,
) {
    let mut row = 0;
    while row < rows {
        let height = match rows - row {
            1 => 1,
            2 | 4 => 2,
            _ => 3,
        };
        for first in (0..keys.len()).step_by(4) {
            let four = [0, 1, 2, 3].map(|i| keys[(first + i).min(keys.len() - 1)]);
            // SAFETY: the caller's promise: as many rows are left as are taken.
            unsafe {
                let (queries, scores) = (queries.add(row * width), scores.add(row * TILE + first));
                match height {
                    1 => dots::<E, 1>(width, four, queries, scores),
                    2 => dots::<E, 2>(width, four, queries, scores),
                    _ => dots::<E, 3>(width, four, queries, scores),
                }
            }
        }
        row += height;
    }
}

/// Four keys by `R` rows of queries. Eight sums run side by side, over every eighth dimension each, and are added up
/// pairwise.
///
/// # Safety
/// As [`rows`], for `R` rows.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn dots<E: Element, const R: usize>(
    width: usize,
    keys: [*const E; 4],
    queries: *const f32,
    out: *mut f32,
) {
    let mut sums: [[__m256; 4]; R] = [[_mm256_setzero_ps(); 4]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for d in (0..width).step_by(8) {
            let mut q = [_mm256_setzero_ps(); R];
            for (i, q) in q.iter_mut().enumerate() {
                *q = _mm256_loadu_ps(queries.add(i * width + d));
            }
            // One key after the other: with three rows' sums and queries that leaves it the last register.
            for (j, key) in keys.iter().enumerate() {
                let k = E::eight(key.add(d));
                for (sums, &q) in sums.iter_mut().zip(&q) {
                    sums[j] = _mm256_fmadd_ps(q, k, sums[j]);
                }
            }
        }
        for (i, [a, b, c, d]) in sums.into_iter().enumerate() {
            let four = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let four = _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps::<1>(four));
            _mm_storeu_ps(out.add(i * TILE), four);
        }
    }
}
