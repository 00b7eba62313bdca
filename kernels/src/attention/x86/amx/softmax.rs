//! Scores of a segment become weights in bfloat16.

use std::arch::x86_64::{
    _CMP_NEQ_UQ, _mm512_add_ps, _mm512_cmp_ps_mask, _mm512_div_ps, _mm512_loadu_ps,
    _mm512_maskz_mov_ps, _mm512_max_ps, _mm512_mul_ps, _mm512_reduce_add_ps, _mm512_reduce_max_ps,
    _mm512_set1_ps, _mm512_setzero_ps, _mm512_storeu_ps, _mm512_storeu_si512, _mm512_sub_ps,
};
use std::ops::Range;

use super::operands::{Row, bfloats};
use crate::attention::{AttentionShape, BiasSpan};
use crate::exp::exp_wide;

/// The weights of one row, whose scores, whole lines of 32, are those of the keys from `start` on; the row sees
/// those in `seen`. Gives the largest score and the sum of weights.
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn row(
    shape: &AttentionShape,
    bias: &[BiasSpan],
    start: usize,
    seen: Range<usize>,
    row: Row<'_>,
) -> (f32, f32) {
    let Row { scores, weights, scales } = row;
    if seen.is_empty() {
        weights.fill(0);
        return (f32::NEG_INFINITY, 0.0);
    }
    if let Some([of_keys, _]) = scales {
        scores.iter_mut().zip(of_keys).for_each(|(score, scale)| *score *= scale);
    }
    if let Some(cap) = shape.softcap {
        softcap(scores, cap);
    }
    for span in bias {
        let end = start + scores.len();
        let from = (span.start as usize).clamp(start, end) - start;
        let to = (span.end as usize).clamp(start + from, end) - start;
        scores[from..to].iter_mut().for_each(|score| *score += span.bias);
    }
    scores[..seen.start].fill(f32::NEG_INFINITY);
    scores[seen.end..].fill(f32::NEG_INFINITY);
    let hidden = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut top = [hidden; 2];
    let lines = scores.as_chunks::<32>().0;
    for line in lines {
        for (half, top) in line.as_chunks::<16>().0.iter().zip(&mut top) {
            // SAFETY: sixteen floats. Were one no number, the greater of the others would come out.
            *top = _mm512_max_ps(unsafe { _mm512_loadu_ps(half.as_ptr()) }, *top);
        }
    }
    let max = _mm512_reduce_max_ps(_mm512_max_ps(top[0], top[1]));
    // Where every key is excluded (a bias of minus infinity) there is nothing to subtract.
    let nothing = max == f32::NEG_INFINITY;
    let shift = _mm512_set1_ps(if nothing { 0.0 } else { max });
    let some_hidden = nothing || seen != (0..lines.len() * 32) || !bias.is_empty();
    let mut total = [_mm512_setzero_ps(); 2];
    let lines_out = weights.as_chunks_mut::<32>().0;
    for (i, (line, out)) in lines.iter().zip(lines_out).enumerate() {
        let mut both = [_mm512_setzero_ps(); 2];
        for ((half, total), weight) in
            line.as_chunks::<16>().0.iter().zip(&mut total).zip(&mut both)
        {
            // SAFETY: sixteen floats.
            let score = unsafe { _mm512_loadu_ps(half.as_ptr()) };
            *weight = exp_wide(_mm512_sub_ps(score, shift));
            if some_hidden {
                let shown = _mm512_cmp_ps_mask::<_CMP_NEQ_UQ>(score, hidden);
                *weight = _mm512_maskz_mov_ps(shown, *weight);
            }
            *total = _mm512_add_ps(*total, *weight);
        }
        if let Some([_, of_values]) = scales {
            for (weight, scales) in both.iter_mut().zip(of_values[32 * i..].as_chunks::<16>().0) {
                // SAFETY: sixteen floats.
                *weight = _mm512_mul_ps(*weight, unsafe { _mm512_loadu_ps(scales.as_ptr()) });
            }
        }
        // SAFETY: 32 of two bytes.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), bfloats(both[0], both[1])) };
    }
    (max, _mm512_reduce_add_ps(_mm512_add_ps(total[0], total[1])))
}

/// `cap * tanh(score / cap)`, as `cap * (1 - 2 / (e^(2 score / cap) + 1))`.
#[target_feature(enable = "avx512f")]
fn softcap(scores: &mut [f32], cap: f32) {
    let (one, two) = (_mm512_set1_ps(1.0), _mm512_set1_ps(2.0));
    for half in scores.as_chunks_mut::<16>().0 {
        // SAFETY: sixteen floats.
        unsafe {
            let score = _mm512_mul_ps(_mm512_loadu_ps(half.as_ptr()), _mm512_set1_ps(2.0 / cap));
            let ratio = _mm512_div_ps(two, _mm512_add_ps(exp_wide(score), one));
            let capped = _mm512_mul_ps(_mm512_set1_ps(cap), _mm512_sub_ps(one, ratio));
            _mm512_storeu_ps(half.as_mut_ptr(), capped);
        }
    }
}
