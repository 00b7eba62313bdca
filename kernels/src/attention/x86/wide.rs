//! Many rows: a tile of keys and values is converted to f32 once and used by all of them.

use std::arch::x86_64::_mm256_storeu_ps;

use half::f16;

use super::dots::Element;
use super::{KeyTile, Scratch, TILE, dots, lanes, padded};
use crate::Isa;
use crate::kv::Vector;
use crate::tile::{WIDTH, multiplier};

/// Scores of `rows` rows against the keys of `tile`.
///
/// # Safety
/// The machine has AVX2, FMA and F16C; the scratch was started with the dimensions and `rows`.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn scores(rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    let (dim, count) = (tile.dim(), tile.count);
    let width = lanes(dim);
    for i in 0..count {
        let key = tile.keys.kv.key(tile.head, tile.slot(i));
        widen(key, &mut scratch.keys[i * width..][..dim]);
        scratch.keys[i * width + dim..][..width - dim].fill(0.0);
    }
    let from: [*const f32; TILE] =
        std::array::from_fn(|i| scratch.keys[i.min(count - 1) * width..].as_ptr());
    let queries = scratch.queries[..rows * width].as_ptr();
    let scores = scratch.scores[..rows * TILE].as_mut_ptr();
    // SAFETY: keys and queries are `width` long; each row has room for a tile of scores.
    unsafe { dots::rows(width, rows, &from[..count], queries, scores) };
    scratch.scale_scores(rows, tile.count, |i| tile.keys.kv.key_scale(tile.head, tile.slot(i)));
}

/// Adds the weighted values of `tile` to the sums of `rows` rows.
///
/// # Safety
/// As [`scores`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn accumulate(isa: Isa, rows: usize, tile: KeyTile<'_>, scratch: &mut Scratch) {
    scratch.scale_scores(rows, tile.count, |i| tile.keys.kv.value_scale(tile.head, tile.slot(i)));
    let (dim, count) = (tile.dim(), tile.count);
    let width = padded(dim);
    for i in 0..count {
        let value = tile.keys.kv.value(tile.head, tile.slot(i));
        widen(value, &mut scratch.values[i * width..][..dim]);
        scratch.values[i * width + dim..][..width - dim].fill(0.0);
    }
    let multiply = multiplier(isa);
    for first in (0..width).step_by(WIDTH) {
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
