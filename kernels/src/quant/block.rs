//! One quantised block taken apart: integer codes and their scales.
//!
//! Every format of ggml's Q family is `w = scale * (code - zero) + min` in groups of 16 or 32
//! weights. The products `scale * code` need at most 24 bits, so they are exact in f32 and the
//! one rounding is that of the final addition. A fused multiply-add therefore gives the very
//! same weight, which is why every kernel agrees with this oracle to the last bit.

use half::f16;

use super::Quant;

/// A block's codes, unsigned, in the order of the weights, with scale and minimum per group.
pub(crate) struct Codes {
    /// Unsigned codes; only the block's first `len` count.
    pub(crate) codes: [u8; 256],
    /// Weights in the block: 32 or 256.
    pub(crate) len: usize,
    /// Weights per group: 16 or 32.
    pub(crate) group: usize,
    /// Subtracted from every code.
    pub(crate) zero: i32,
    /// Bits of the block's f16 scale.
    pub(crate) d: u16,
    /// Bits of the block's f16 minimum (0 where the format has none).
    pub(crate) m: u16,
    /// Multiplies `d` for each group (1 where the format has none).
    pub(crate) scales: [i8; 16],
    /// Multiplies `m` for each group: 1 for `Q4_1` and `Q5_1`, -0..=-63 for the K formats.
    pub(crate) mins: [i8; 16],
}

impl Codes {
    fn new(len: usize, group: usize, zero: i32) -> Self {
        Self { codes: [0; 256], len, group, zero, d: 0, m: 0, scales: [1; 16], mins: [0; 16] }
    }

    pub(crate) fn dequantize(&self, out: &mut [f32]) {
        let (d, m) = (f16::from_bits(self.d).to_f32(), f16::from_bits(self.m).to_f32());
        let groups = out.chunks_exact_mut(self.group).zip(self.codes.chunks_exact(self.group));
        for (g, (out, codes)) in groups.enumerate() {
            let scale = d * f32::from(self.scales[g]);
            let min = m * f32::from(self.mins[g]);
            for (w, &code) in out.iter_mut().zip(codes) {
                *w = scale * ((i32::from(code) - self.zero) as f32) + min;
            }
        }
    }
}

fn bits(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

/// Takes one block of a quantised format apart.
/// # Panics
/// If `block` is not `block_bytes` long, or the format has no codes (F32, F16, BF16).
pub(crate) fn unpack(quant: Quant, block: &[u8]) -> Codes {
    assert_eq!(block.len(), quant.block_bytes());
    match quant {
        Quant::Q4_0 => simple(block, 8, false, false),
        Quant::Q4_1 => simple(block, 0, true, false),
        Quant::Q5_0 => simple(block, 16, false, true),
        Quant::Q5_1 => simple(block, 0, true, true),
        Quant::Q8_0 => {
            let mut out = Codes::new(32, 32, 128);
            out.d = bits(block, 0);
            for (code, &q) in out.codes.iter_mut().zip(&block[2..]) {
                *code = q ^ 0x80; // two's complement to offset 128
            }
            out
        }
        Quant::Q4_K => q45_k(block, None),
        Quant::Q5_K => q45_k(block, Some(16)),
        Quant::Q6_K => q6_k(block),
        Quant::F32 | Quant::F16 | Quant::BF16 => panic!("{quant:?} has no codes"),
    }
}

/// `Q4_0`, `Q4_1`, `Q5_0`, `Q5_1`: d, m?, high bits?, 16 bytes of nibbles (weight `j` low, `j + 16` high).
fn simple(block: &[u8], zero: i32, has_min: bool, has_high: bool) -> Codes {
    let mut out = Codes::new(32, 32, zero);
    out.d = bits(block, 0);
    let mut at = 2;
    if has_min {
        out.m = bits(block, at);
        out.mins = [1; 16];
        at += 2;
    }
    let mut high = 0;
    if has_high {
        high = u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        at += 4;
    }
    for (j, &q) in block[at..].iter().enumerate() {
        out.codes[j] = (q & 15) | ((high >> j) as u8 & 1) << 4;
        out.codes[j + 16] = (q >> 4) | ((high >> (j + 16)) as u8 & 1) << 4;
    }
    out
}

/// `Q4_K` and `Q5_K`: d, dmin, eight 6-bit scales and minima in 12 bytes, then (for `Q5_K`) a plane of
/// high bits at `high`, then nibbles: byte `32 p + l` holds weight `64 p + l` low and `64 p + 32 + l` high.
fn q45_k(block: &[u8], high: Option<usize>) -> Codes {
    let mut out = Codes::new(256, 32, 0);
    (out.d, out.m) = (bits(block, 0), bits(block, 2));
    let s = &block[4..16];
    for g in 0..8 {
        let (scale, min) = if g < 4 {
            (s[g] & 63, s[g + 4] & 63)
        } else {
            ((s[g + 4] & 15) | (s[g - 4] >> 6) << 4, (s[g + 4] >> 4) | (s[g] >> 6) << 4)
        };
        out.scales[g] = scale as i8;
        out.mins[g] = -(min as i8);
    }
    let nibbles = &block[block.len() - 128..];
    for g in 0..8 {
        for l in 0..32 {
            let q = nibbles[g / 2 * 32 + l];
            let low = if g % 2 == 0 { q & 15 } else { q >> 4 };
            let bit = high.map_or(0, |at| (block[at + l] >> g) & 1);
            out.codes[g * 32 + l] = low | bit << 4;
        }
    }
    out
}

/// `Q6_K`: low nibbles, pairs of high bits, 16 signed scales, d.
fn q6_k(block: &[u8]) -> Codes {
    let mut out = Codes::new(256, 16, 32);
    let (low, high) = (&block[..128], &block[128..192]);
    for (scale, &b) in out.scales.iter_mut().zip(&block[192..208]) {
        *scale = b as i8;
    }
    out.d = bits(block, 208);
    for half in 0..2 {
        for quarter in 0..4 {
            for l in 0..32 {
                let byte = low[half * 64 + quarter % 2 * 32 + l];
                let nibble = if quarter < 2 { byte & 15 } else { byte >> 4 };
                let pair = (high[half * 32 + l] >> (2 * quarter)) & 3;
                out.codes[half * 128 + quarter * 32 + l] = nibble | pair << 4;
            }
        }
    }
    out
}
