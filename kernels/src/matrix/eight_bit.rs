//! Activations in eight bits, which is how coded weights meet them: products are then sums of integers.
//!
//! 32 neighbours share a scale, `max|x| / 127`, so each comes back within half a scale of itself.
//! Every instruction set rounds alike; this is the rule, in scalars.

/// Activations that share a scale.
pub(super) const GROUP: usize = 32;

/// Largest magnitude that counts as zero: 127 divided by less would be no number.
const TINY: f32 = 1e-36;

/// Scale of a group whose largest magnitude is `max`, and what activations are multiplied by to become codes.
/// NaN and infinity stay, so that what they touch is no number either.
pub(super) fn scale(max: f32) -> (f32, f32) {
    if max < TINY { (0.0, 0.0) } else { (max * (1.0 / 127.0), 127.0 / max) }
}

/// What becomes of `x`, whole groups, on its way through eight bits.
pub(super) fn round(x: &[f32]) -> Vec<f32> {
    let mut rounded = Vec::with_capacity(x.len());
    for group in x.chunks(GROUP) {
        // As integers, magnitudes are in the order of the floats, with NaN above infinity.
        let max = group.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0);
        let (scale, inverse) = scale(f32::from_bits(max));
        rounded.extend(group.iter().map(|x| (x * inverse).round_ties_even() * scale));
    }
    rounded
}
