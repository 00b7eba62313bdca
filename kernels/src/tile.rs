//! The f32 multiply kernel that matrices and attention share: some rows by 16 columns in registers.

use std::arch::x86_64::{
    __m256, __m512, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use crate::Isa;

/// Columns of a tile.
pub(crate) const WIDTH: usize = 16;

/// Rows of a full tile with AVX2: 12 accumulators cover the latency of both FMA units and leave registers for
/// two columns and a broadcast.
pub(crate) const HEIGHT: usize = 6;

/// Rows of a full tile with AVX-512: as many accumulators.
const WIDE_HEIGHT: usize = 12;

/// `c[i, j] (+)= sum_k a[i, k] * b[k, j]`: rows, `k`, then `a`, `b` and `c`, each with its row stride, and whether to
/// start from 0 or from what is in `c`. Rows have 16 columns.
///
/// # Safety
/// The machine has the instruction set asked for. With their strides, `a` is readable for `rows * k`,
/// `b` for `k * 16` and `c` writable for `rows * 16` elements.
pub(crate) type Multiply =
    unsafe fn(usize, usize, *const f32, usize, *const f32, usize, *mut f32, usize, bool);

/// The kernel for `isa`, AVX2 or above. Each makes a sum in ascending order of `k` by fused multiply-adds, so a row has
/// the same bits in any tile on any of them.
pub(crate) fn multiplier(isa: Isa) -> Multiply {
    if isa.avx512() { multiply_wide } else { multiply }
}

/// See [`Multiply`].
#[target_feature(enable = "avx2,fma")]
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
unsafe fn multiply(
    rows: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    fresh: bool,
) {
    let full = rows / HEIGHT * HEIGHT;
    // SAFETY: tiles cover rows 0..rows, within what the caller promises.
    unsafe {
        for i in (0..full).step_by(HEIGHT) {
            tile::<HEIGHT>(k, a.add(i * lda), lda, b, ldb, c.add(i * ldc), ldc, fresh);
        }
        let (a, c) = (a.add(full * lda), c.add(full * ldc));
        match rows - full {
            1 => tile::<1>(k, a, lda, b, ldb, c, ldc, fresh),
            2 => tile::<2>(k, a, lda, b, ldb, c, ldc, fresh),
            3 => tile::<3>(k, a, lda, b, ldb, c, ldc, fresh),
            4 => tile::<4>(k, a, lda, b, ldb, c, ldc, fresh),
            5 => tile::<5>(k, a, lda, b, ldb, c, ldc, fresh),
            _ => {}
        }
    }
}

/// # Safety
/// As [`multiply`], for `M` rows.
#[target_feature(enable = "avx2,fma")]
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
unsafe fn tile<const M: usize>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    fresh: bool,
) {
    let mut sums: [[__m256; 2]; M] = [[_mm256_setzero_ps(); 2]; M];
    // SAFETY: the caller's promise covers every access.
    unsafe {
        if !fresh {
            for (i, sum) in sums.iter_mut().enumerate() {
                let c = c.add(i * ldc);
                *sum = [_mm256_loadu_ps(c), _mm256_loadu_ps(c.add(8))];
            }
        }
        for k in 0..k {
            let b = b.add(k * ldb);
            let (b0, b1) = (_mm256_loadu_ps(b), _mm256_loadu_ps(b.add(8)));
            for (i, sum) in sums.iter_mut().enumerate() {
                let a = _mm256_broadcast_ss(&*a.add(i * lda + k));
                sum[0] = _mm256_fmadd_ps(a, b0, sum[0]);
                sum[1] = _mm256_fmadd_ps(a, b1, sum[1]);
            }
        }
        for (i, sum) in sums.iter().enumerate() {
            let c = c.add(i * ldc);
            _mm256_storeu_ps(c, sum[0]);
            _mm256_storeu_ps(c.add(8), sum[1]);
        }
    }
}

/// See [`Multiply`].
#[target_feature(enable = "avx512f")]
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
unsafe fn multiply_wide(
    rows: usize,
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    fresh: bool,
) {
    let mut i = 0;
    while i < rows {
        // SAFETY: tiles cover rows 0..rows, within what the caller promises.
        i += unsafe {
            let (a, c) = (a.add(i * lda), c.add(i * ldc));
            match rows - i {
                WIDE_HEIGHT.. => wide_tile::<WIDE_HEIGHT>(k, a, lda, b, ldb, c, ldc, fresh),
                6.. => wide_tile::<6>(k, a, lda, b, ldb, c, ldc, fresh),
                3.. => wide_tile::<3>(k, a, lda, b, ldb, c, ldc, fresh),
                _ => wide_tile::<1>(k, a, lda, b, ldb, c, ldc, fresh),
            }
        };
    }
}

/// `M` rows; says how many that is.
///
/// # Safety
/// As [`Multiply`], for `M` rows.
#[target_feature(enable = "avx512f")]
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
unsafe fn wide_tile<const M: usize>(
    k: usize,
    a: *const f32,
    lda: usize,
    b: *const f32,
    ldb: usize,
    c: *mut f32,
    ldc: usize,
    fresh: bool,
) -> usize {
    let mut sums: [__m512; M] = [_mm512_setzero_ps(); M];
    // SAFETY: the caller's promise covers every access.
    unsafe {
        if !fresh {
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_loadu_ps(c.add(i * ldc));
            }
        }
        for k in 0..k {
            let b = _mm512_loadu_ps(b.add(k * ldb));
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = _mm512_fmadd_ps(_mm512_set1_ps(*a.add(i * lda + k)), b, *sum);
            }
        }
        for (i, &sum) in sums.iter().enumerate() {
            _mm512_storeu_ps(c.add(i * ldc), sum);
        }
    }
    M
}
