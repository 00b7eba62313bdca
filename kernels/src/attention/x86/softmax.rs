//! Scores of a tile become weights; earlier sums are rescaled when the largest score grows.

use std::arch::x86_64::{
    __m256, _CMP_NEQ_UQ, _mm256_add_epi32, _mm256_add_ps, _mm256_and_ps, _mm256_and_si256,
    _mm256_blendv_ps, _mm256_castsi256_ps, _mm256_cmp_ps, _mm256_cmpgt_epi32, _mm256_div_ps,
    _mm256_loadu_ps, _mm256_max_ps, _mm256_mul_ps, _mm256_set1_epi32, _mm256_set1_ps,
    _mm256_setr_epi32, _mm256_setzero_ps, _mm256_storeu_ps, _mm256_sub_ps,
};
use std::ops::Range;

use super::{Scratch, TILE, padded};
use crate::attention::{AttentionShape, BiasSpan};
use crate::exp::{exp, exp_below};

/// One row of a tile that begins at key `start`; the row sees the tile's keys `seen`.
///
/// # Safety
/// The machine has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn row(
    shape: &AttentionShape,
    bias: &[BiasSpan],
    start: usize,
    seen: Range<usize>,
    row: usize,
    dim: usize,
    scratch: &mut Scratch,
) {
    let scores = &mut scratch.scores[row * TILE..][..TILE];
    if seen.is_empty() {
        scores.fill(0.0);
        return;
    }
    if let Some(cap) = shape.softcap {
        softcap(scores, cap);
    }
    for span in bias {
        let from = (span.start as usize).clamp(start, start + TILE) - start;
        let to = (span.end as usize).clamp(start + from, start + TILE) - start;
        scores[from..to].iter_mut().for_each(|score| *score += span.bias);
    }
    // What follows the last key seen weighs nothing.
    let (scores, after) = scores.split_at_mut(seen.end.next_multiple_of(8));
    after.fill(0.0);
    let (lanes, _) = scores.as_chunks_mut::<8>();
    let hidden = _mm256_set1_ps(f32::NEG_INFINITY);
    let mut top = hidden;
    let some_hidden = seen.start > 0 || !seen.end.is_multiple_of(8);
    if some_hidden {
        let (from, to) =
            (_mm256_set1_epi32(seen.start as i32 - 1), _mm256_set1_epi32(seen.end as i32));
        let mut index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
        for lane in lanes.iter_mut() {
            let inside =
                _mm256_and_si256(_mm256_cmpgt_epi32(index, from), _mm256_cmpgt_epi32(to, index));
            // SAFETY: a lane is eight floats.
            unsafe {
                let score = _mm256_loadu_ps(lane.as_ptr());
                let score = _mm256_blendv_ps(hidden, score, _mm256_castsi256_ps(inside));
                _mm256_storeu_ps(lane.as_mut_ptr(), score);
            }
            index = _mm256_add_epi32(index, _mm256_set1_epi32(8));
        }
    }
    for lane in lanes.iter() {
        // SAFETY: a lane is eight floats.
        top = _mm256_max_ps(unsafe { _mm256_loadu_ps(lane.as_ptr()) }, top);
    }
    let before = scratch.max[row];
    let max = fold(top, f32::max).max(before);
    // Where every key so far is excluded (a bias of minus infinity) there is nothing to subtract.
    let nothing = max == f32::NEG_INFINITY;
    let shift = _mm256_set1_ps(if nothing { 0.0 } else { max });
    let sum = match some_hidden || nothing || !bias.is_empty() {
        true => weigh::<true>(lanes, shift),
        false => weigh::<false>(lanes, shift),
    };
    // Where nothing was seen before there is nothing to rescale: sums are 0.
    if max > before && before > f32::NEG_INFINITY {
        let factor = (before - max).exp();
        scratch.total[row] *= factor;
        scratch.sums[row * padded(dim)..][..padded(dim)].iter_mut().for_each(|x| *x *= factor);
    }
    scratch.max[row] = max;
    scratch.total[row] += sum;
}

/// Makes scores weights, `e^(score - shift)`, and gives their sum. Where some are `HIDDEN`, minus infinity, those
/// weigh exactly nothing.
#[inline]
#[target_feature(enable = "avx2,fma")]
fn weigh<const HIDDEN: bool>(scores: &mut [[f32; 8]], shift: __m256) -> f32 {
    let hidden = _mm256_set1_ps(f32::NEG_INFINITY);
    let mut sum = _mm256_setzero_ps();
    for lane in scores {
        // SAFETY: a lane is eight floats.
        unsafe {
            let score = _mm256_loadu_ps(lane.as_ptr());
            let mut weight = exp_below(_mm256_sub_ps(score, shift));
            if HIDDEN {
                weight = _mm256_and_ps(weight, _mm256_cmp_ps::<_CMP_NEQ_UQ>(score, hidden));
            }
            _mm256_storeu_ps(lane.as_mut_ptr(), weight);
            sum = _mm256_add_ps(sum, weight);
        }
    }
    fold(sum, |a, b| a + b)
}

/// `cap * tanh(score / cap)`, as `cap * (1 - 2 / (e^(2 score / cap) + 1))`.
#[target_feature(enable = "avx2,fma")]
fn softcap(scores: &mut [f32], cap: f32) {
    let (one, two) = (_mm256_set1_ps(1.0), _mm256_set1_ps(2.0));
    for lane in scores.as_chunks_mut::<8>().0 {
        // SAFETY: a lane is eight floats.
        unsafe {
            let score = _mm256_mul_ps(_mm256_loadu_ps(lane.as_ptr()), _mm256_set1_ps(2.0 / cap));
            let ratio = _mm256_div_ps(two, _mm256_add_ps(exp(score), one));
            let capped = _mm256_mul_ps(_mm256_set1_ps(cap), _mm256_sub_ps(one, ratio));
            _mm256_storeu_ps(lane.as_mut_ptr(), capped);
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn fold(x: __m256, combine: fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0f32; 8];
    // SAFETY: eight floats.
    unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), x) };
    let [a, b, c, d, e, f, g, h] = lanes;
    combine(combine(combine(a, e), combine(b, f)), combine(combine(c, g), combine(d, h)))
}
