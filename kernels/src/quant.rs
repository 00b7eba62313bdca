//! Weight formats of GGUF (ggml block layouts) and their scalar dequantisation, the oracle.

mod block;

pub(crate) use block::{Codes, unpack};

use half::{bf16, f16};

/// A storage format of weights. Block layouts follow ggml (`ggml-common.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are those of the format")]
#[expect(non_camel_case_types, reason = "the names are those of the format")]
pub enum Quant {
    F32,
    F16,
    BF16,
    Q4_0,
    Q4_1,
    Q5_0,
    Q5_1,
    Q8_0,
    Q4_K,
    Q5_K,
    Q6_K,
}

impl Quant {
    /// Every format, in the order of the declaration.
    pub const ALL: [Self; 11] = [
        Self::F32,
        Self::F16,
        Self::BF16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q4_K,
        Self::Q5_K,
        Self::Q6_K,
    ];

    /// Weights per block (1, 32 or 256).
    pub fn block_len(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::BF16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q4_K | Self::Q5_K | Self::Q6_K => 256,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::BF16 => 2,
            Self::Q4_0 => 2 + 16,
            Self::Q4_1 => 4 + 16,
            Self::Q5_0 => 2 + 4 + 16,
            Self::Q5_1 => 4 + 4 + 16,
            Self::Q8_0 => 2 + 32,
            Self::Q4_K => 4 + 12 + 128,
            Self::Q5_K => 4 + 12 + 32 + 128,
            Self::Q6_K => 128 + 64 + 16 + 2,
        }
    }

    /// Bytes of a row of `cols` weights, `None` if `cols` is no multiple of the block or on overflow.
    pub fn row_bytes(self, cols: usize) -> Option<usize> {
        if !cols.is_multiple_of(self.block_len()) {
            return None;
        }
        (cols / self.block_len()).checked_mul(self.block_bytes())
    }

    /// Dequantises one row: `bytes` of `row_bytes(out.len())` into `out`.
    /// # Panics
    /// If the lengths disagree.
    pub fn dequantize_row(self, bytes: &[u8], out: &mut [f32]) {
        assert_eq!(Some(bytes.len()), self.row_bytes(out.len()), "row of {self:?}");
        match self {
            Self::F32 => {
                for (w, b) in out.iter_mut().zip(bytes.as_chunks::<4>().0) {
                    *w = f32::from_le_bytes(*b);
                }
            }
            Self::F16 => {
                for (w, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *w = f16::from_le_bytes(*b).to_f32();
                }
            }
            Self::BF16 => {
                for (w, b) in out.iter_mut().zip(bytes.as_chunks::<2>().0) {
                    *w = bf16::from_le_bytes(*b).to_f32();
                }
            }
            _ => {
                let blocks = bytes.chunks_exact(self.block_bytes());
                for (out, block) in out.chunks_exact_mut(self.block_len()).zip(blocks) {
                    unpack(self, block).dequantize(out);
                }
            }
        }
    }
}

/// Appends `row` in `Q8_0` blocks to `out`: for models whose file has floats. Each weight moves by at most half of
/// its block's scale, `max|w| / 127`, and the rounding of that scale to f16. A number that is none, or that f16
/// cannot scale, becomes one that is none.
/// # Panics
/// If `row` is no whole number of blocks.
pub fn quantize_q8_0(row: &[f32], out: &mut Vec<u8>) {
    let (blocks, rest) = row.as_chunks::<32>();
    assert!(rest.is_empty(), "a row of {} weights is no whole number of blocks", row.len());
    for block in blocks {
        let largest = f32::from_bits(block.iter().map(|w| w.abs().to_bits()).max().unwrap_or(0));
        let scale = f16::from_f32(largest / 127.0);
        let inverse = if scale == f16::ZERO { 0.0 } else { 1.0 / scale.to_f32() };
        out.extend(scale.to_le_bytes());
        out.extend(block.iter().map(|w| (w * inverse).round_ties_even() as i8 as u8));
    }
}

#[cfg(test)]
pub(crate) mod tests;
