//! Many rows: a tile of keys and values is converted to f32 once and used by all of them.

use std::arch::x86_64::_mm256_storeu_ps;

use half::f16;

use super::dots::Element;
use super::{Scratch, TILE, dots, lanes, padded};
use crate::attention::Keys;
use crate::kv::Vector;
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
        let key = keys.kv.key(head, keys.slot(start + i));
        widen(key, &mut scratch.keys[i * width..][..dim]);
        scratch.keys[i * width + dim..][..width - dim].fill(0.0);
    }
    let from: [*const f32; TILE] =
        std::array::from_fn(|i| scratch.keys[i.min(count - 1) * width..].as_ptr());
    let queries = scratch.queries[..rows * width].as_ptr();
    let scores = scratch.scores[..rows * TILE].as_mut_ptr();
    // SAFETY: keys and queries are `width` long; each row has room for a tile of scores.
    unsafe { dots::rows(width, rows, &from[..count], queries, scores) };
    scratch.scale_scores(rows, start..start + count, |at| keys.kv.key_scale(head, keys.slot(at)));
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
    scratch.scale_scores(rows, start..start + count, |at| keys.kv.value_scale(head, keys.slot(at)));
    let width = padded(dim);
    for i in 0..count {
        let value = keys.kv.value(head, keys.slot(start + i));
        widen(value, &mut scratch.values[i * width..][..dim]);
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

/// Elements to f32; the scale of codes comes later.
#[target_feature(enable = "avx2,f16c")]
fn widen(vector: Vector<'_>, out: &mut [f32]) {
    match vector {
        Vector::F16(bits) => {
            widen_lanes(bits, out);
            let tail = bits.len() / 8 * 8;
            for (&bits, out) in bits[tail..].iter().zip(&mut out[tail..]) {
                *out = f16::from_bits(bits).to_f32();
            }
        }
        Vector::Int8(codes, _) => {
            widen_lanes(codes, out);
            let tail = codes.len() / 8 * 8;
            for (&code, out) in codes[tail..].iter().zip(&mut out[tail..]) {
                *out = f32::from(code);
            }
        }
    }
}

/// Whole lanes of eight.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn widen_lanes<E: Element>(from: &[E], out: &mut [f32]) {
    for (lane, out) in from.as_chunks::<8>().0.iter().zip(out.as_chunks_mut::<8>().0) {
        // SAFETY: eight elements in, eight floats out.
        unsafe { _mm256_storeu_ps(out.as_mut_ptr(), E::eight(lane.as_ptr())) };
    }
}
