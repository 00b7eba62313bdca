//! Numbers in eight bits. Some share a scale, `max|x| / 127`, so each comes back within half a scale of itself.
//!
//! Activations meet coded weights like that, 32 neighbours at a time: products are then sums of integers. Keys and
//! values may be kept like that, a head's vector at a time. Every instruction set rounds alike; this is the rule, in scalars.

/// Activations that share a scale.
pub(crate) const GROUP: usize = 32;

/// Largest magnitude that counts as zero: 127 divided by less would be no number.
const TINY: f32 = 1e-36;

/// Scale of numbers whose largest magnitude is `max`, and what they are multiplied by to become codes.
/// NaN and infinity stay, so that what they touch is no number either.
pub(crate) fn scale(max: f32) -> (f32, f32) {
    if max < TINY { (0.0, 0.0) } else { (max * (1.0 / 127.0), 127.0 / max) }
}

/// The largest magnitude. As integers, magnitudes are in the order of the floats, with NaN above infinity.
#[inline]
pub(crate) fn largest(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0))
}

/// Writes the codes of `x`, whose scale is `1 / inverse`.
#[inline]
pub(crate) fn codes(x: &[f32], inverse: f32, codes: &mut [i8]) {
    for (code, x) in codes.iter_mut().zip(x) {
        *code = (x * inverse).round_ties_even() as i8;
    }
}

/// What becomes of activations, whole groups, on their way through eight bits.
pub(crate) fn round(x: &[f32]) -> Vec<f32> {
    let mut rounded = Vec::with_capacity(x.len());
    for group in x.chunks(GROUP) {
        let (scale, inverse) = scale(largest(group));
        rounded.extend(group.iter().map(|x| (x * inverse).round_ties_even() * scale));
    }
    rounded
}
