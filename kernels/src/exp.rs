//! The exponential of eight and of sixteen floats.

use std::arch::x86_64::{
    __m256, __m512, _MM_FROUND_NO_EXC, _MM_FROUND_TO_NEAREST_INT, _mm256_add_epi32,
    _mm256_castps_si256, _mm256_castsi256_ps, _mm256_fmadd_ps, _mm256_fnmadd_ps, _mm256_max_ps,
    _mm256_min_ps, _mm256_mul_ps, _mm256_set1_ps, _mm256_slli_epi32, _mm256_sub_ps,
    _mm512_fmadd_ps, _mm512_mul_ps, _mm512_roundscale_ps, _mm512_scalef_ps, _mm512_set1_ps,
    _mm512_sub_ps,
};

use crate::softmax::POWERS;

/// `e^x`, relative error under 5e-7, for `-87 <= x <= 88`; below it stays at `e^-87` (1.6e-38, nothing
/// beside a softmax's largest weight of 1), above at `e^88`. NaN stays NaN.
///
/// `x = n ln 2 + r`: [`POWERS`] of `r`, then `n` is added to the exponent.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn exp(x: __m256) -> __m256 {
    let c = |value: f32| _mm256_set1_ps(value);
    // The bounds come first: max and min return their second operand when either is NaN.
    exp_of_bounded(_mm256_min_ps(c(88.0), _mm256_max_ps(c(-87.0), x)))
}

/// [`exp`], for `x` of at most 88.
#[inline]
#[target_feature(enable = "avx2,fma")]
pub(crate) fn exp_below(x: __m256) -> __m256 {
    exp_of_bounded(_mm256_max_ps(_mm256_set1_ps(-87.0), x))
}

/// [`exp`], for `-87 <= x <= 88`.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn exp_of_bounded(x: __m256) -> __m256 {
    let c = |value: f32| _mm256_set1_ps(value);
    let shifter = c(12_582_912.0); // 1.5 * 2^23: adding it rounds to an integer in the low bits
    let shifted = _mm256_fmadd_ps(x, c(std::f32::consts::LOG2_E), shifter);
    let n = _mm256_sub_ps(shifted, shifter);
    // The constant is 1.9e-9 off, 127 times which is 2.4e-7.
    let r = _mm256_fnmadd_ps(n, c(std::f32::consts::LN_2), x);
    let [rest @ .., fifth] = POWERS;
    let mut p = c(fifth);
    for factor in rest.into_iter().rev() {
        p = _mm256_fmadd_ps(p, r, c(factor));
    }
    let exponent = _mm256_slli_epi32::<23>(_mm256_castps_si256(shifted));
    let power = _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_castps_si256(c(1.0))));
    _mm256_mul_ps(p, power)
}

/// What `2^f` is, in ascending powers of `f`, for `|f| <= 1/2`: the polynomial of degree 4 whose largest relative error is
/// least (Remez' algorithm), 2.6e-6, but for a first factor of 1, so that `2^0` is 1: 3.4e-6.
const POWERS_OF_TWO: [f32; 5] = [1.0, 0.693_121_8, 0.240_247_46, 0.055_918_023, 0.009_570_083];

/// `e^x`, relative error under 7e-6 for `-30 <= x <= 30` and under 1.5e-5 beyond, where the product with `log2 e` is
/// rounded most: for weights that are rounded to bfloat16. NaN stays NaN and so does infinity become.
///
/// `x log2 e = n + f`: [`POWERS_OF_TWO`] of `f`, scaled by `2^n`.
#[inline]
#[target_feature(enable = "avx512f")]
pub(crate) fn exp_wide(x: __m512) -> __m512 {
    const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    let c = |value: f32| _mm512_set1_ps(value);
    let t = _mm512_mul_ps(x, c(std::f32::consts::LOG2_E));
    let n = _mm512_roundscale_ps::<NEAREST>(t);
    let f = _mm512_sub_ps(t, n);
    let [rest @ .., fourth] = POWERS_OF_TWO;
    let mut p = c(fourth);
    for factor in rest.into_iter().rev() {
        p = _mm512_fmadd_ps(p, f, c(factor));
    }
    _mm512_scalef_ps(p, n)
}

#[cfg(test)]
mod tests {
    use std::arch::x86_64::{_mm256_loadu_ps, _mm256_storeu_ps};

    use crate::Isa;

    fn exp(x: [f32; 8]) -> [f32; 8] {
        let mut out = [0.0; 8];
        // SAFETY: the tests below ask for AVX2 first; both arrays hold eight floats.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), super::exp(_mm256_loadu_ps(x.as_ptr()))) };
        out
    }

    #[test]
    fn the_stated_error_holds() {
        if !Isa::Avx2.avx2() {
            println!("no AVX2 here: nothing to test");
            return;
        }
        let mut worst = 0.0f64;
        for i in 0..200_000 {
            let x = -87.0 + i as f32 * (175.0 / 200_000.0);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp([x; 8])[3]) / exact - 1.0).abs());
        }
        assert!(worst < 5e-7, "{worst}");
    }

    #[test]
    fn ends_and_nan() {
        if !Isa::Avx2.avx2() {
            println!("no AVX2 here: nothing to test");
            return;
        }
        let out = exp([0.0, -0.0, f32::NEG_INFINITY, f32::NAN, 200.0, -200.0, 1.0, -1.0]);
        assert_eq!(out[0], 1.0);
        assert_eq!(out[1], 1.0);
        assert!(out[2] < 2e-38 && out[5] < 2e-38);
        assert!(out[3].is_nan());
        assert!(out[4] > 1e38 && out[4].is_finite());
    }

    #[test]
    fn the_stated_error_of_sixteen_holds() {
        use std::arch::x86_64::{_mm512_loadu_ps, _mm512_storeu_ps};
        if !Isa::Avx512.avx512() {
            println!("no AVX-512 here: nothing to test");
            return;
        }
        #[target_feature(enable = "avx512f")]
        fn exp(x: [f32; 16]) -> [f32; 16] {
            let mut out = [0.0; 16];
            // SAFETY: both arrays hold sixteen floats.
            unsafe {
                _mm512_storeu_ps(out.as_mut_ptr(), super::exp_wide(_mm512_loadu_ps(x.as_ptr())))
            };
            out
        }
        for i in 0..200_000 {
            let x = -87.0 + i as f32 * (175.0 / 200_000.0);
            // SAFETY: the machine has AVX-512.
            let got = f64::from(unsafe { exp([x; 16]) }[11]);
            let error = (got / f64::from(x).exp() - 1.0).abs();
            assert!(error < if x.abs() <= 30.0 { 7e-6 } else { 1.5e-5 }, "{x}: {error}");
        }
        // SAFETY: as above.
        let out = unsafe { exp([0.0, -0.0, f32::NAN, -200.0].repeat(4).try_into().unwrap()) };
        assert!(out[0] == 1.0 && out[1] == 1.0 && out[2].is_nan() && out[3] < 1e-37);
    }
}
