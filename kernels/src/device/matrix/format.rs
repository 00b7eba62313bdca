//! How weights lie on a device. `cuda/matrix.cuh` draws the places of codes; here they are put there.

use half::{bf16, f16};

use crate::Quant;
use crate::quant::{Codes, unpack};

/// Bytes of a chunk of codes: sixteen for each of four lanes.
const CHUNK_BYTES: usize = 64;

/// How a weight is stored on a device.
///
/// Formats of files become the one that holds their codes as they are. A group's scale and offset are products of two
/// numbers in some files; rounded to f16 here, they move by at most 2^-11 of themselves. Those of `Q4_0`, `Q4_1`, `Q5_0`,
/// `Q5_1` and `Q8_0` come through exactly. Scales beyond 65,504 become infinite.
///
/// Rows of coded weights are filled up to a whole chunk of 64 bytes: 128 weights of `Q4`, 64 of the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceFormat {
    /// bfloat16: 16 bits a weight. F32, F16 and BF16, rounded to the nearest.
    Bf16,
    /// 4-bit codes, scale and offset for each 32: 5 bits. `Q4_0`, `Q4_1`, `Q4_K`.
    Q4,
    /// 8-bit codes, a scale for each 32: 8.5 bits. `Q5_0`, `Q8_0`.
    Q8,
    /// 8-bit codes, a scale for each 16: 9 bits. `Q6_K`.
    Q8Fine,
    /// 8-bit codes, scale and offset for each 32: 9 bits. `Q5_1`, `Q5_K`.
    Q8Offset,
}

impl DeviceFormat {
    /// What weights stored as `quant` in a file become.
    pub fn of(quant: Quant) -> Self {
        match quant {
            Quant::F32 | Quant::F16 | Quant::BF16 => Self::Bf16,
            Quant::Q4_0 | Quant::Q4_1 | Quant::Q4_K => Self::Q4,
            Quant::Q5_0 | Quant::Q8_0 => Self::Q8,
            Quant::Q6_K => Self::Q8Fine,
            Quant::Q5_1 | Quant::Q5_K => Self::Q8Offset,
        }
    }

    /// Weights of a chunk.
    pub(super) fn chunk(self) -> usize {
        match self {
            Self::Bf16 => CHUNK_BYTES / 2,
            Self::Q4 => CHUNK_BYTES * 2,
            Self::Q8 | Self::Q8Fine | Self::Q8Offset => CHUNK_BYTES,
        }
    }

    /// Bytes of a row's codes.
    pub(super) fn code_bytes(self, cols: usize) -> usize {
        match self {
            Self::Bf16 => 2 * cols,
            _ => cols.div_ceil(self.chunk()) * CHUNK_BYTES,
        }
    }

    /// Bytes of a row's scales and offsets.
    pub(super) fn scale_bytes(self, cols: usize) -> usize {
        let chunk = match self {
            Self::Bf16 => 0,
            Self::Q4 => 16,
            Self::Q8 => 4,
            Self::Q8Fine | Self::Q8Offset => 8,
        };
        cols.div_ceil(self.chunk()) * chunk
    }

    /// Weights that share a scale.
    fn group(self) -> usize {
        match self {
            Self::Q8Fine => 16,
            _ => 32,
        }
    }

    fn has_offsets(self) -> bool {
        matches!(self, Self::Q4 | Self::Q8Offset)
    }

    /// Codes of a word of four bytes.
    fn word(self) -> usize {
        if self == Self::Q4 { 8 } else { 4 }
    }

    /// Byte of a row's codes at which the word lies that begins with weight `k`. A chunk has four words for each of four lanes;
    /// the words of a number lie side by side in the row, one for each lane.
    fn word_at(self, k: usize) -> usize {
        let (chunk, word) = (self.chunk(), self.word());
        let (j, lane) = (k % chunk / (4 * word), k % chunk / word % 4);
        k / chunk * CHUNK_BYTES + 16 * lane + 4 * j
    }

    /// Bit of a word at which its code `at` begins. Of four bits, neighbours lie sixteen bits apart, where a kernel wants
    /// them.
    fn bit_at(self, at: usize) -> usize {
        match self {
            Self::Q4 => at / 2 * 4 + at % 2 * 16,
            _ => at * 8,
        }
    }

    /// Stores a row, given as a file has it. `codes` and `scales` are its bytes here, zeroed.
    pub(super) fn pack(self, quant: Quant, row: &[u8], codes: &mut [u8], scales: &mut [u8]) {
        debug_assert_eq!(self, Self::of(quant));
        match quant {
            Quant::BF16 => codes.copy_from_slice(row),
            Quant::F16 => {
                for (to, from) in codes.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
                    *to = bf16::from_f32(f16::from_le_bytes(*from).to_f32()).to_le_bytes();
                }
            }
            Quant::F32 => {
                for (to, from) in codes.as_chunks_mut().0.iter_mut().zip(row.as_chunks().0) {
                    *to = bf16::from_f32(f32::from_le_bytes(*from)).to_le_bytes();
                }
            }
            _ => {
                for (index, block) in row.chunks_exact(quant.block_bytes()).enumerate() {
                    let block = unpack(quant, block);
                    self.pack_block(&block, index * block.len, codes, scales);
                }
            }
        }
    }

    /// Stores a block whose first weight is weight `first` of the row.
    fn pack_block(self, block: &Codes, first: usize, codes: &mut [u8], scales: &mut [u8]) {
        debug_assert_eq!(block.group, self.group());
        // Nibbles are unsigned, and the offset makes up for it; bytes are signed.
        let shift = if self == Self::Q4 { 0 } else { block.zero };
        for (index, few) in block.codes[..block.len].chunks_exact(self.word()).enumerate() {
            let word = few.iter().enumerate().fold(0, |word, (at, &code)| {
                word | u32::from((i32::from(code) - shift) as u8) << self.bit_at(at)
            });
            let at = self.word_at(first + index * self.word());
            codes[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let (d, m) = (f16::from_bits(block.d).to_f32(), f16::from_bits(block.m).to_f32());
        let width = if self.has_offsets() { 4 } else { 2 };
        for group in 0..block.len / block.group {
            let scale = d * f32::from(block.scales[group]);
            let to = &mut scales[(first / block.group + group) * width..][..width];
            to[..2].copy_from_slice(&f16::from_f32(scale).to_le_bytes());
            if self.has_offsets() {
                let low = m * f32::from(block.mins[group]);
                let offset = low - scale * (block.zero - shift) as f32;
                to[2..].copy_from_slice(&f16::from_f32(offset).to_le_bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CODED: [DeviceFormat; 4] =
        [DeviceFormat::Q4, DeviceFormat::Q8, DeviceFormat::Q8Fine, DeviceFormat::Q8Offset];

    #[test]
    fn every_code_has_a_place_of_its_own() {
        for format in CODED {
            let mut taken = std::collections::HashSet::new();
            let cols = 3 * format.chunk();
            for k in (0..cols).step_by(format.word()) {
                let byte = format.word_at(k);
                for at in 0..format.word() {
                    let bit = byte * 8 + format.bit_at(at);
                    assert!(bit < format.code_bytes(cols) * 8, "{format:?} {k}");
                    assert!(taken.insert(bit), "{format:?} {k}");
                }
            }
        }
    }

    #[test]
    fn bits_a_weight_are_those_stated() {
        let bits = [5.0, 8.5, 9.0, 9.0];
        for (format, bits) in CODED.into_iter().zip(bits) {
            let bytes = format.code_bytes(4096) + format.scale_bytes(4096);
            assert_eq!(bytes as f64 * 8.0 / 4096.0, bits, "{format:?}");
        }
        assert_eq!(
            DeviceFormat::Bf16.code_bytes(4096) + DeviceFormat::Bf16.scale_bytes(4096),
            8192
        );
        // Half a chunk more is a chunk more.
        assert_eq!(DeviceFormat::Q4.code_bytes(576), 5 * 64);
        assert_eq!(DeviceFormat::Q8.code_bytes(576), 576);
    }
}
