//! Softmax over short rows, and the exponential it takes, in plain loops that become as wide as the registers.
//!
//! Every step is the same on every instruction set, fused or not, and so are results.

use crate::Isa;

/// Sums that run side by side: two registers with AVX2, one with AVX-512.
const LANES: usize = 16;

/// What `e^r` is, in ascending powers of `r`, for `|r| <= ln 2 / 2`: the polynomial of degree 5 whose largest relative
/// error is least (Remez' algorithm), 7.5e-8, but for a first factor of 1, so that `e^0` is 1: 1.5e-7.
pub(crate) const POWERS: [f32; 6] =
    [1.0, 0.999_999_7, 0.499_988_94, 0.166_675_75, 0.041_915_43, 0.008_297_648];

/// `e^x`, relative error under 5e-7, for `-87 <= x <= 88`; below it stays at `e^-87`, above at `e^88`. NaN stays NaN.
///
/// `x = n ln 2 + r`: [`POWERS`] of `r`, then `n` is added to the exponent.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    /// `1.5 * 2^23`: adding it rounds to an integer, which then stands in the low bits.
    const SHIFTER: f32 = 12_582_912.0;
    let x = x.clamp(-87.0, 88.0);
    let shifted = x.mul_add(std::f32::consts::LOG2_E, SHIFTER);
    let n = shifted - SHIFTER;
    // The constant is 1.9e-9 off, 127 times which is 2.4e-7.
    let r = n.mul_add(-std::f32::consts::LN_2, x);
    let [rest @ .., fifth] = POWERS;
    let mut p = fifth;
    for factor in rest.into_iter().rev() {
        p = p.mul_add(r, factor);
    }
    p * f32::from_bits((shifted.to_bits() << 23).wrapping_add(1.0f32.to_bits()))
}

/// Makes the first `len` numbers of each row of `stride` scores the weights `softmax(scale * scores)`.
///
/// Not through `Isa::vectorize`: where a loop of this size is not inlined into it, each `mul_add` is a call.
pub(crate) fn rows(isa: Isa, scores: &mut [f32], stride: usize, len: usize, scale: f32) {
    #[inline(always)]
    fn all(scores: &mut [f32], stride: usize, len: usize, scale: f32) {
        // A loop, for a closure might not be inlined either.
        for scores in scores.chunks_exact_mut(stride) {
            row(&mut scores[..len], scale);
        }
    }
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma")]
        fn avx2(scores: &mut [f32], stride: usize, len: usize, scale: f32) {
            all(scores, stride, len, scale);
        }
        #[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512dq,avx512vl")]
        fn avx512(scores: &mut [f32], stride: usize, len: usize, scale: f32) {
            all(scores, stride, len, scale);
        }
        if isa.avx512() {
            // SAFETY: the machine has these.
            return unsafe { avx512(scores, stride, len, scale) };
        }
        if isa.avx2() {
            // SAFETY: as above.
            return unsafe { avx2(scores, stride, len, scale) };
        }
    }
    let _ = isa;
    all(scores, stride, len, scale);
}

#[inline(always)]
fn row(scores: &mut [f32], scale: f32) {
    let mut largest = [f32::NEG_INFINITY; LANES];
    let (rows, tail) = scores.as_chunks::<LANES>();
    for row in rows {
        for (largest, &score) in largest.iter_mut().zip(row) {
            *largest = if score > *largest { score } else { *largest };
        }
    }
    let largest = tail.iter().chain(&largest).copied().fold(f32::NEG_INFINITY, f32::max);
    let mut sums = [0.0; LANES];
    let (rows, tail) = scores.as_chunks_mut::<LANES>();
    for row in rows {
        for (sum, score) in sums.iter_mut().zip(row) {
            *score = exp((*score - largest) * scale);
            *sum += *score;
        }
    }
    for (sum, score) in sums.iter_mut().zip(tail) {
        *score = exp((*score - largest) * scale);
        *sum += *score;
    }
    let share = 1.0 / sums.iter().sum::<f32>();
    scores.iter_mut().for_each(|score| *score *= share);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{exp, rows};
    use crate::Isa;

    #[test]
    fn the_stated_error_of_the_exponential_holds() {
        for i in 0..200_000 {
            let x = -87.0 + i as f32 * (175.0 / 200_000.0);
            let error = (f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs();
            assert!(error < 5e-7, "{x}: {error}");
        }
        assert_eq!((exp(0.0), exp(-0.0)), (1.0, 1.0));
        assert!(exp(f32::NAN).is_nan() && exp(-200.0) < 2e-38 && exp(200.0).is_finite());
    }

    proptest! {
        #[test]
        fn weights_match_the_formula_in_f64_on_every_set(
            scores in prop::collection::vec(-40.0f32..40.0, 1..70), scale in 0.05f32..1.5,
        ) {
            let largest = f64::from(scores.iter().copied().fold(f32::MIN, f32::max));
            let exact: Vec<f64> =
                scores.iter().map(|&x| ((f64::from(x) - largest) * f64::from(scale)).exp()).collect();
            let sum: f64 = exact.iter().sum();
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available() {
                let mut weights = scores.clone();
                let len = weights.len();
                rows(isa, &mut weights, len, len, scale);
                for (&weight, exact) in weights.iter().zip(&exact) {
                    prop_assert!((f64::from(weight) - exact / sum).abs() < 4e-6, "{weight} {exact}");
                }
                prop_assert_eq!(&weights, first.get_or_insert_with(|| weights.clone()));
            }
        }
    }
}
