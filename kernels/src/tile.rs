//! The f32 multiply kernel that matrices and attention share: up to 6 rows by 16 columns in registers.

use std::arch::x86_64::{
    __m256, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps,
};

/// Columns of a tile.
pub(crate) const WIDTH: usize = 16;

/// Rows of a full tile: 12 accumulators cover the latency of both FMA units and leave registers for
/// two columns and a broadcast.
pub(crate) const HEIGHT: usize = 6;

/// `c[i, j] (+)= sum_k a[i, k] * b[k, j]` for `rows` rows and 16 columns, each sum in ascending
/// order of `k` by fused multiply-adds, so that a row has the same bits in any tile.
/// `fresh` starts from 0, otherwise from what is in `c`.
///
/// # Safety
/// The machine has AVX2 and FMA. With row strides `lda`, `ldb`, `ldc`, `a` is readable for `rows * k`,
/// `b` for `k * 16` and `c` writable for `rows * 16` elements.
#[target_feature(enable = "avx2,fma")]
#[expect(clippy::too_many_arguments, reason = "three matrices with their strides")]
pub(crate) unsafe fn multiply(
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
