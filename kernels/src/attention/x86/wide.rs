//! Many rows: a tile of keys and values is converted to f32 once and used by all of them.

use std::arch::x86_64::{_mm_loadu_si128, _mm256_cvtph_ps, _mm256_storeu_ps};

use half::f16;

use super::{Scratch, TILE, dots, lanes, padded};
use crate::attention::Keys;
use crate::{Isa, tile};

/// Scores of `rows` rows against the keys at `start..start + count`.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; the scratch was started with `dim` and `rows`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn scores(
    dim: usize,
    rows: usize,
    keys: Keys<'_>,
    head: usize,
    start: usize,
    count: usize,
    scratch: &mut Scratch,
) {
    let width = lanes(dim);
    for i in 0..count {
        let key = keys.kv.keys(head, keys.slot(start + i), 1);
        widen(key, &mut scratch.keys[i * width..][..dim]);
        scratch.keys[i * width + dim..][..width - dim].fill(0.0);
    }
    for first in (0..count).step_by(4) {
        let from: [*const f32; 4] =
            std::array::from_fn(|i| scratch.keys[(first + i).min(count - 1) * width..].as_ptr());
        let queries = scratch.queries[..rows * width].as_ptr();
        let scores = scratch.scores[..rows * TILE][first..].as_mut_ptr();
        // SAFETY: keys and queries are `width` long; a tile has room for four scores of each row.
        unsafe { dots::rows(width, rows, from, queries, scores) };
    }
}

/// Adds the weighted values at `start..start + count` to the sums of `rows` rows.
///
/// # Safety
/// As [`scores`].
#[target_feature(enable = "avx2,fma,f16c")]
#[expect(clippy::too_many_arguments, reason = "plain sizes, as every kernel takes")]
pub(super) unsafe fn accumulate(
    isa: Isa,
    dim: usize,
    rows: usize,
    keys: Keys<'_>,
    head: usize,
    start: usize,
    count: usize,
    scratch: &mut Scratch,
) {
    let width = padded(dim);
    for i in 0..count {
        let values = keys.kv.values(head, keys.slot(start + i), 1);
        widen(values, &mut scratch.values[i * width..][..dim]);
        scratch.values[i * width + dim..][..width - dim].fill(0.0);
    }
    let multiply = tile::multiplier(isa);
    for first in (0..width).step_by(tile::WIDTH) {
        // SAFETY: the scratch holds `rows` weights and sums, and `count` values of `width`.
        unsafe {
            multiply(
                rows,
                count,
                scratch.scores.as_ptr(),
                TILE,
                scratch.values[first..].as_ptr(),
                width,
                scratch.sums[first..].as_mut_ptr(),
                width,
                false,
            );
        }
    }
}

/// f16 bits to f32.
#[target_feature(enable = "avx2,f16c")]
fn widen(bits: &[u16], out: &mut [f32]) {
    let (lanes, tail) = bits.as_chunks::<8>();
    let (outs, out_tail) = out.as_chunks_mut::<8>();
    for (lane, out) in lanes.iter().zip(outs) {
        // SAFETY: sixteen bytes in, eight floats out.
        unsafe {
            let x = _mm256_cvtph_ps(_mm_loadu_si128(lane.as_ptr().cast()));
            _mm256_storeu_ps(out.as_mut_ptr(), x);
        }
    }
    for (&bits, out) in tail.iter().zip(out_tail) {
        *out = f16::from_bits(bits).to_f32();
    }
}
