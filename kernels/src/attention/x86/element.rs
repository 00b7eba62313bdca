//! Elements of keys and values as they are kept, and as floats; the scale of codes comes later.

use std::arch::x86_64::{
    __m256, _mm_loadl_epi64, _mm_loadu_si128, _mm256_cvtepi8_epi32, _mm256_cvtepi32_ps,
    _mm256_cvtph_ps, _mm256_storeu_ps,
};

use half::f16;

/// An element of a key or a value.
pub(super) trait Element: Copy {
    /// Eight of them as floats.
    ///
    /// # Safety
    /// The machine has AVX2 and F16C, and eight elements are readable at `at`.
    unsafe fn eight(at: *const Self) -> __m256;

    /// One as a float.
    fn float(self) -> f32;

    /// Writes sixteen as floats.
    ///
    /// # Safety
    /// The machine has AVX2 and F16C; sixteen elements are readable at `at`, as many floats writable at `out`.
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn sixteen(at: *const Self, out: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            _mm256_storeu_ps(out, Self::eight(at));
            _mm256_storeu_ps(out.add(8), Self::eight(at.add(8)));
        }
    }
}

/// Bits of f16.
impl Element for u16 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight(at: *const u16) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(at.cast())) }
    }

    fn float(self) -> f32 {
        f16::from_bits(self).to_f32()
    }
}

/// Codes.
impl Element for i8 {
    #[inline]
    #[target_feature(enable = "avx2,f16c")]
    unsafe fn eight(at: *const i8) -> __m256 {
        // SAFETY: the caller's promise.
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))) }
    }

    fn float(self) -> f32 {
        f32::from(self)
    }
}
