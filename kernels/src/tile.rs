//! Products of f32 matrices, which attention and matrices of floats share: some rows by some columns in registers.

use std::arch::x86_64::{
    __m256, __m512, _mm256_broadcast_ss, _mm256_fmadd_ps, _mm256_loadu_ps, _mm256_setzero_ps,
    _mm256_storeu_ps, _mm512_fmadd_ps, _mm512_loadu_ps, _mm512_set1_ps, _mm512_setzero_ps,
    _mm512_storeu_ps,
};

use crate::Isa;

/// Columns of `b` and `c` come in whole multiples of this.
pub(crate) const WIDTH: usize = 16;

/// Rows of a tile of [`WIDTH`] columns with AVX2: 12 sums cover the latency of both FMA units and leave registers for
/// two columns and a broadcast.
pub(crate) const HEIGHT: usize = 6;

/// Columns of a wide tile. Where `b` is laid out for it, this many side by side are one stretch of memory.
pub(crate) const STRIP: usize = 2 * WIDTH;

/// Rows of a wide tile: as many sums from fewer loads.
const WIDE_HEIGHT: usize = 3;

/// Rows of a tile with AVX-512: as many sums.
const TALL: usize = 12;

/// Rows of `b` multiplied at a time: a strip of them are half of the first-level cache.
const DEPTH: usize = 128;

/// `c[i, j] (+)= sum_k a[i, k] * b[k, j]`. Strides are elements from one row to the next.
///
/// A sum is made in ascending order of `k` by fused multiply-adds, on every instruction set: so a row has the same
/// bits in any tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Product {
    /// Of `a` and `c`.
    pub(crate) rows: usize,
    /// Columns of `a`, rows of `b`.
    pub(crate) depth: usize,
    /// Of `b` and `c`: a multiple of [`WIDTH`].
    pub(crate) cols: usize,
    pub(crate) a: *const f32,
    pub(crate) a_stride: usize,
    pub(crate) b: *const f32,
    pub(crate) b_stride: usize,
    pub(crate) c: *mut f32,
    pub(crate) c_stride: usize,
    /// Start from 0, not from what is in `c`.
    pub(crate) fresh: bool,
}

impl Product {
    /// # Safety
    /// The machine has `isa`, which is AVX2 or above. `a` and `b` are readable and `c` is writable for their rows and
    /// columns.
    pub(crate) unsafe fn compute(&self, isa: Isa) {
        debug_assert!(self.cols.is_multiple_of(WIDTH), "{} columns", self.cols);
        let mut first = 0;
        loop {
            // SAFETY: the caller's promise; these rows of `b` and columns of `a` are among them.
            unsafe {
                let part = Self {
                    depth: DEPTH.min(self.depth - first),
                    a: self.a.add(first),
                    b: self.b.add(first * self.b_stride),
                    fresh: self.fresh && first == 0,
                    ..*self
                };
                if isa.avx512() { part.avx512() } else { part.avx2() }
            }
            first += DEPTH;
            if first >= self.depth {
                break;
            }
        }
    }

    /// Columns `first..first + cols`.
    ///
    /// # Safety
    /// As [`Product::compute`]; there are these columns.
    unsafe fn strip(&self, first: usize, cols: usize) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self { cols, b: self.b.add(first), c: self.c.add(first), ..*self } }
    }

    /// The rows from `first` on.
    ///
    /// # Safety
    /// As [`Product::compute`]; there are as many rows.
    unsafe fn below(&self, first: usize) -> Self {
        // SAFETY: the caller's promise.
        let (a, c) =
            unsafe { (self.a.add(first * self.a_stride), self.c.add(first * self.c_stride)) };
        Self { rows: self.rows - first, a, c, ..*self }
    }

    /// # Safety
    /// As [`Product::compute`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn avx2(&self) {
        let wide = self.cols / STRIP * STRIP;
        // SAFETY: tiles cover all columns and rows.
        unsafe {
            for first in (0..wide).step_by(STRIP) {
                let strip = self.strip(first, STRIP);
                let full = self.rows / WIDE_HEIGHT * WIDE_HEIGHT;
                for row in (0..full).step_by(WIDE_HEIGHT) {
                    strip.below(row).tile::<WIDE_HEIGHT, 4>();
                }
                let rest = strip.below(full);
                match rest.rows {
                    1 => rest.tile::<1, 4>(),
                    2 => rest.tile::<2, 4>(),
                    _ => {}
                }
            }
            if wide < self.cols {
                let strip = self.strip(wide, WIDTH);
                let full = self.rows / HEIGHT * HEIGHT;
                for row in (0..full).step_by(HEIGHT) {
                    strip.below(row).tile::<HEIGHT, 2>();
                }
                let rest = strip.below(full);
                match rest.rows {
                    1 => rest.tile::<1, 2>(),
                    2 => rest.tile::<2, 2>(),
                    3 => rest.tile::<3, 2>(),
                    4 => rest.tile::<4, 2>(),
                    5 => rest.tile::<5, 2>(),
                    _ => {}
                }
            }
        }
    }

    /// `M` rows by `8 V` columns, all there are.
    ///
    /// # Safety
    /// As [`Product::compute`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<const M: usize, const V: usize>(&self) {
        let mut sums: [[__m256; V]; M] = [[_mm256_setzero_ps(); V]; M];
        let (mut a, mut b) = (self.a, self.b);
        // SAFETY: the caller's promise covers every access.
        unsafe {
            if !self.fresh {
                for (i, sums) in sums.iter_mut().enumerate() {
                    for (v, sum) in sums.iter_mut().enumerate() {
                        *sum = _mm256_loadu_ps(self.c.add(i * self.c_stride + 8 * v));
                    }
                }
            }
            for _ in 0..self.depth {
                let x: [__m256; M] =
                    std::array::from_fn(|i| _mm256_broadcast_ss(&*a.add(i * self.a_stride)));
                for v in 0..V {
                    let column = _mm256_loadu_ps(b.add(8 * v));
                    for (sums, &x) in sums.iter_mut().zip(&x) {
                        sums[v] = _mm256_fmadd_ps(x, column, sums[v]);
                    }
                }
                (a, b) = (a.wrapping_add(1), b.wrapping_add(self.b_stride));
            }
            for (i, sums) in sums.iter().enumerate() {
                for (v, &sum) in sums.iter().enumerate() {
                    _mm256_storeu_ps(self.c.add(i * self.c_stride + 8 * v), sum);
                }
            }
        }
    }

    /// # Safety
    /// As [`Product::compute`].
    #[target_feature(enable = "avx512f")]
    unsafe fn avx512(&self) {
        for first in (0..self.cols).step_by(WIDTH) {
            // SAFETY: tiles cover all columns and rows.
            unsafe {
                let mut rest = self.strip(first, WIDTH);
                while rest.rows > 0 {
                    rest = rest.below(match rest.rows {
                        TALL.. => rest.tall_tile::<TALL>(),
                        6.. => rest.tall_tile::<6>(),
                        3.. => rest.tall_tile::<3>(),
                        _ => rest.tall_tile::<1>(),
                    });
                }
            }
        }
    }

    /// `M` rows by 16 columns; says how many rows that is.
    ///
    /// # Safety
    /// As [`Product::compute`]; there are as many rows.
    #[inline]
    #[target_feature(enable = "avx512f")]
    unsafe fn tall_tile<const M: usize>(&self) -> usize {
        let mut sums: [__m512; M] = [_mm512_setzero_ps(); M];
        // SAFETY: the caller's promise covers every access.
        unsafe {
            if !self.fresh {
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = _mm512_loadu_ps(self.c.add(i * self.c_stride));
                }
            }
            for k in 0..self.depth {
                let b = _mm512_loadu_ps(self.b.add(k * self.b_stride));
                for (i, sum) in sums.iter_mut().enumerate() {
                    let a = _mm512_set1_ps(*self.a.add(i * self.a_stride + k));
                    *sum = _mm512_fmadd_ps(a, b, *sum);
                }
            }
            for (i, &sum) in sums.iter().enumerate() {
                _mm512_storeu_ps(self.c.add(i * self.c_stride), sum);
            }
        }
        M
    }
}
