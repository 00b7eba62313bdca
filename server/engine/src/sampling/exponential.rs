//! Maxima and exponentials over a vocabulary, written so that the compiler vectorises them.

use pith_kernels::Isa;

use super::SampleError;

/// Floats handled side by side; every loop here keeps this many sums.
pub(super) const LANES: usize = 16;

/// The largest logit.
///
/// `NotFinite` if one is NaN or +infinity; `NothingLeft` if all are -infinity.
pub(super) fn top(isa: Isa, logits: &[f32]) -> Result<f32, SampleError> {
    isa.vectorize(|| top_of(logits))
}

#[inline(always)]
fn top_of(logits: &[f32]) -> Result<f32, SampleError> {
    let mut tops = [f32::NEG_INFINITY; LANES];
    let mut bad = [false; LANES];
    let (blocks, rest) = logits.as_chunks::<LANES>();
    for block in blocks {
        for lane in 0..LANES {
            tops[lane] = if block[lane] > tops[lane] { block[lane] } else { tops[lane] };
            bad[lane] |= block[lane].is_nan() | (block[lane] == f32::INFINITY);
        }
    }
    let mut top = f32::NEG_INFINITY;
    let mut any_bad = bad.contains(&true);
    for &value in tops.iter().chain(rest) {
        top = if value > top { value } else { top };
        any_bad |= value.is_nan() | (value == f32::INFINITY);
    }
    if any_bad {
        Err(SampleError::NotFinite)
    } else if top == f32::NEG_INFINITY {
        Err(SampleError::NothingLeft)
    } else {
        Ok(top)
    }
}

/// `ln(sum(exp(logits)))`, summed in f64.
pub(crate) fn log_sum_exp(isa: Isa, logits: &[f32]) -> Result<f64, SampleError> {
    let top = top(isa, logits)?;
    Ok(f64::from(top) + isa.vectorize(|| sum_exp(logits, top)).ln())
}

/// Sum of `exp(logit - top)`.
#[inline(always)]
fn sum_exp(logits: &[f32], top: f32) -> f64 {
    let mut sum = 0.0f64;
    // A partial sum of few terms, each at most 1, loses nothing that matters in f32.
    for stretch in logits.chunks(8 * LANES) {
        let mut sums = [0.0f32; LANES];
        let (blocks, rest) = stretch.as_chunks::<LANES>();
        for block in blocks {
            for lane in 0..LANES {
                sums[lane] += exp(block[lane] - top);
            }
        }
        sum += sums.iter().map(|&lane| f64::from(lane)).sum::<f64>();
        sum += rest.iter().map(|&logit| f64::from(exp(logit - top))).sum::<f64>();
    }
    sum
}

/// `exp(x)` for `x <= 0`, to a relative error of 3e-7; exactly 0 below -87 (where the result
/// would be no normal float), 1 at 0.
///
/// Cody and Waite: `x = n ln 2 + r`, a polynomial for `exp(r)`, and `2^n` put straight into the
/// exponent's bits. No call and no branch, so loops over it vectorise.
#[inline(always)]
pub(super) fn exp(x: f32) -> f32 {
    /// Adding and subtracting `1.5 * 2^23` rounds to an integer.
    const ROUND: f32 = 12_582_912.0;
    let clamped = if x > -87.0 { x } else { -87.0 };
    let n = (clamped * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts: the first has so few bits that n times it is exact.
    let r = clamped - n * 0.693_359_4 - n * -2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    p = p * r + 1.398_2e-3;
    p = p * r + 8.333_452e-3;
    p = p * r + 4.166_579_6e-2;
    p = p * r + 1.666_666_5e-1;
    p = p * r + 5e-1;
    p = p * r * r + r + 1.0;
    let power = f32::from_bits(((n as i32 + 127) as u32) << 23);
    if x > -87.0 { p * power } else { 0.0 }
}
