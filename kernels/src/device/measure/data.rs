//! Random numbers in a device's memory. They matter: zeros are multiplied at a lower power, and so faster.

use half::{bf16, f16};

use crate::Quant;
use crate::device::{Device, DeviceError, DeviceSlice, DeviceVec, Plain};

/// Numbers made on the host; the device's memory is filled with copies of them.
const PATTERN: usize = 4 << 20;

/// Numbers that look random.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between -1 and 1.
    pub(super) fn float(&mut self) -> f32 {
        (self.bits() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// In any order, every number below `count` once.
    pub(super) fn shuffled(&mut self, count: usize) -> Vec<u32> {
        let mut numbers: Vec<u32> = (0..count as u32).collect();
        for at in (1..count).rev() {
            numbers.swap(at, self.bits() as usize % (at + 1));
        }
        numbers
    }
}

/// Fills `to` with copies of `pattern`.
pub(super) fn repeat<T: Plain>(to: DeviceSlice<'_, T>, pattern: &[T]) -> Result<(), DeviceError> {
    let mut filled = pattern.len().min(to.len());
    to.first(filled).upload(&pattern[..filled])?;
    while filled < to.len() {
        let more = filled.min(to.len() - filled);
        to.first(more).copy_to(to.slice(filled..filled + more))?;
        filled += more;
    }
    Ok(())
}

/// `len` numbers of bfloat16 between -1 and 1.
pub(super) fn halves(device: &Device, len: usize) -> Result<DeviceVec<u16>, DeviceError> {
    let mut noise = Noise::new(1);
    let pattern: Vec<u16> =
        (0..len.min(PATTERN)).map(|_| bf16::from_f32(noise.float()).to_bits()).collect();
    let made = DeviceVec::new(device, len)?;
    repeat(made.as_slice(), &pattern)?;
    Ok(made)
}

/// `len` numbers between -`size` and `size`.
pub(super) fn floats(
    device: &Device,
    len: usize,
    size: f32,
) -> Result<DeviceVec<f32>, DeviceError> {
    let mut noise = Noise::new(2);
    let pattern: Vec<f32> = (0..len.min(PATTERN)).map(|_| noise.float() * size).collect();
    let made = DeviceVec::new(device, len)?;
    repeat(made.as_slice(), &pattern)?;
    Ok(made)
}

/// Rows of a file that stores `cols` weights as `quant`, one of `BF16`, `Q8_0` and `Q4_0`: at most `rows` of them.
pub(super) fn weights(quant: Quant, rows: usize, cols: usize) -> Vec<u8> {
    let row_bytes = quant.row_bytes(cols).unwrap_or(0);
    let rows = rows.min((2 * PATTERN / row_bytes.max(1)).max(1));
    let mut noise = Noise::new(3);
    let mut bytes = Vec::with_capacity(rows * row_bytes);
    while bytes.len() < rows * row_bytes {
        if quant == Quant::BF16 {
            bytes.extend(bf16::from_f32(noise.float()).to_le_bytes());
        } else {
            // A scale comes first, then codes.
            bytes.extend(f16::from_f32(0.01).to_le_bytes());
            bytes.extend((2..quant.block_bytes()).map(|_| noise.bits() as u8));
        }
    }
    bytes
}

/// Bytes of eight-bit floats (e4m3), none of which is NaN.
pub(super) fn codes(len: usize) -> Vec<u8> {
    let mut noise = Noise::new(4);
    (0..len.min(PATTERN)).map(|_| noise.bits() as u8 & 0xbf).collect()
}

/// Bytes of bfloat16 numbers.
pub(super) fn half_bytes(len: usize) -> Vec<u8> {
    let mut noise = Noise::new(5);
    let numbers = (0..len.div_ceil(2).min(PATTERN)).map(|_| bf16::from_f32(noise.float()));
    numbers.flat_map(bf16::to_le_bytes).collect()
}
