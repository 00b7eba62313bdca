//! Many rows: a tile of keys and values is converted to f32 once, then two matrix products.

use std::arch::x86_64::{
    __m256, _mm_loadu_si128, _mm256_cvtph_ps, _mm256_permute2f128_ps, _mm256_setzero_ps,
    _mm256_shuffle_ps, _mm256_storeu_ps, _mm256_unpackhi_ps, _mm256_unpacklo_ps,
};

use half::f16;

use super::{Scratch, TILE, padded};
use crate::attention::Keys;
use crate::tile;

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
    for first in (0..count.next_multiple_of(8)).step_by(8) {
        let sources: [Option<&[u16]>; 8] = std::array::from_fn(|i| {
            let at = first + i;
            (at < count).then(|| keys.kv.keys(head, keys.slot(start + at), 1))
        });
        let out = &mut scratch.keys[first / 16 * 16 * dim..][..16 * dim];
        transpose(dim, sources, &mut out[first % 16..]);
    }
    for first in (0..count).step_by(tile::WIDTH) {
        // SAFETY: the scratch holds `rows` queries and scores, and this panel of keys.
        unsafe {
            tile::multiply(
                rows,
                dim,
                scratch.queries.as_ptr(),
                dim,
                scratch.keys[first * dim..][..16 * dim].as_ptr(),
                tile::WIDTH,
                scratch.scores[first..].as_mut_ptr(),
                TILE,
                true,
            );
        }
    }
}

/// Adds the weighted values at `start..start + count` to the sums of `rows` rows.
///
/// # Safety
/// As [`scores`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn accumulate(
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
    for first in (0..width).step_by(tile::WIDTH) {
        // SAFETY: the scratch holds `rows` weights and sums, and `count` values of `width`.
        unsafe {
            tile::multiply(
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

/// Eight keys side by side: dimension `d` of key `i` goes to `out[16 d + i]`; a missing key is 0.
#[target_feature(enable = "avx2,f16c")]
fn transpose(dim: usize, keys: [Option<&[u16]>; 8], out: &mut [f32]) {
    for d in (0..dim / 8 * 8).step_by(8) {
        let rows = keys.map(|key| match key {
            // SAFETY: a key has `dim >= d + 8` elements.
            Some(key) => unsafe { _mm256_cvtph_ps(_mm_loadu_si128(key[d..d + 8].as_ptr().cast())) },
            None => _mm256_setzero_ps(),
        });
        for (i, column) in transposed(rows).into_iter().enumerate() {
            let out = &mut out[(d + i) * 16..][..8];
            // SAFETY: eight floats.
            unsafe { _mm256_storeu_ps(out.as_mut_ptr(), column) };
        }
    }
    for d in dim / 8 * 8..dim {
        for (i, key) in keys.iter().enumerate() {
            out[d * 16 + i] = key.map_or(0.0, |key| f16::from_bits(key[d]).to_f32());
        }
    }
}

/// An 8 x 8 transposition in registers.
#[target_feature(enable = "avx2")]
#[inline]
fn transposed(r: [__m256; 8]) -> [__m256; 8] {
    let pair = |a, b| (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let ((a0, a1), (a2, a3)) = (pair(r[0], r[1]), pair(r[2], r[3]));
    let ((a4, a5), (a6, a7)) = (pair(r[4], r[5]), pair(r[6], r[7]));
    let four = |a, b| (_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b));
    let ((b0, b1), (b2, b3)) = (four(a0, a2), four(a1, a3));
    let ((b4, b5), (b6, b7)) = (four(a4, a6), four(a5, a7));
    let low = |a, b| _mm256_permute2f128_ps::<0x20>(a, b);
    let high = |a, b| _mm256_permute2f128_ps::<0x31>(a, b);
    [
        low(b0, b4),
        low(b1, b5),
        low(b2, b6),
        low(b3, b7),
        high(b0, b4),
        high(b1, b5),
        high(b2, b6),
        high(b3, b7),
    ]
}
