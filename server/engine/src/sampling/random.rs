//! Counter-based randomness: a number is a function of a seed and a counter, with no state between.

/// The finaliser of SplitMix64 (Steele, Lea and Flood, *Fast Splittable Pseudorandom Number
/// Generators*, 2014, with Stafford's mix 13): a bijection of 64 bits that passes avalanche tests.
pub(super) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SplitMix64's increment: the odd number nearest `2^64 / golden ratio`.
pub(super) const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// A uniform number in `[0, 1)`: the `counter`-th output of SplitMix64 begun at `mix(seed + GOLDEN)`.
///
/// The seed is mixed first so that neighbouring seeds do not give shifted copies of one stream.
pub(super) fn uniform(seed: u64, counter: u64) -> f64 {
    let start = mix(seed.wrapping_add(GOLDEN));
    let bits = mix(start.wrapping_add(GOLDEN.wrapping_mul(counter.wrapping_add(1))));
    // 53 bits: as many as an f64 holds exactly below 1.
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}
