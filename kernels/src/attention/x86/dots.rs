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

/// Scores of `rows` rows of queries against four keys; those of row `i` go to `scores + TILE i`.
///
/// # Safety
/// The machine has AVX2, FMA and F16C. `keys` point at `width` elements each, a multiple of 8, `queries` at
/// `rows * width`; four scores of every row are writable.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn rows<E: Element>(
    width: usize,
    rows: usize,
    keys: [*const E; 4],
    queries: *const f32,
    scores: *mut f32,
) {
    let mut row = 0;
    while row < rows {
        // SAFETY: the caller's promise: as many rows are left as are taken.
        row += unsafe {
            let (queries, scores) = (queries.add(row * width), scores.add(row * TILE));
            match rows - row {
                1 => dots::<E, 1>(width, keys, queries, scores),
                2 | 4 => dots::<E, 2>(width, keys, queries, scores),
                _ => dots::<E, 3>(width, keys, queries, scores),
            }
        };
    }
}

/// Four keys by `R` rows of queries; says how many rows it did. Eight sums run side by side, over every eighth
/// dimension each, and are added up pairwise.
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
) -> usize {
    let mut sums: [[__m256; 4]; R] = [[_mm256_setzero_ps(); 4]; R];
    // SAFETY: the caller's promise.
    unsafe {
        for d in (0..width).step_by(8) {
            let k = [
                E::eight(keys[0].add(d)),
                E::eight(keys[1].add(d)),
                E::eight(keys[2].add(d)),
                E::eight(keys[3].add(d)),
            ];
            for (i, sums) in sums.iter_mut().enumerate() {
                let q = _mm256_loadu_ps(queries.add(i * width + d));
                for (sum, &k) in sums.iter_mut().zip(&k) {
                    *sum = _mm256_fmadd_ps(q, k, *sum);
                }
            }
        }
        for (i, [a, b, c, d]) in sums.into_iter().enumerate() {
            let four = _mm256_hadd_ps(_mm256_hadd_ps(a, b), _mm256_hadd_ps(c, d));
            let four = _mm_add_ps(_mm256_castps256_ps128(four), _mm256_extractf128_ps::<1>(four));
            _mm_storeu_ps(out.add(i * TILE), four);
        }
    }
    R
}
