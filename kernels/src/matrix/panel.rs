//! How 16 rows lie in a panel.
//!
//! A panel is one stream, read front to back. With `g` = weights per group (32; 16 for `Q6_K`):
//!
//! | format | a superblock (one ggml block of each of the 16 rows) |
//! |---|---|
//! | F32, F16, BF16 | per `k`: 16 weights |
//! | Q4_0, Q5_0, Q8_0 | `d: [f16; 16]`, codes |
//! | Q4_1, Q5_1 | `d: [f16; 16]`, `m: [f16; 16]`, codes |
//! | Q4_K, Q5_K | `d: [f16; 16]`, `dmin: [f16; 16]`, per group `scale: [i8; 16]`, `-min: [i8; 16]`, then per group codes |
//! | Q6_K | `d: [f16; 16]`, per group `scale: [i8; 16]`, then per group codes |
//!
//! The codes of a group are words: a word is `[u32; 16]`, one lane a row.
//!
//! - 8 bits (`Q8_0`): word `s` holds the codes of `k = 4 s + i` in byte `i`.
//! - 4 bits: word `t` holds `k = 8 t + i` in the low nibble of byte `i`, `k = 8 t + 4 + i` in the high one.
//! - 5 bits: first one word with bit 4 of `k = 4 s + i` at bit `s` of byte `i`, then as 4 bits.
//! - 6 bits: first one word with bits 4 and 5 of `k = 4 s + i` at bits `2 s` and `2 s + 1` of byte `i`, then as 4 bits.
//!
//! So a byte mask and a conversion yield eight rows' code, and every part is a multiple of 32 bytes.

use half::{bf16, f16};

use crate::Quant;
use crate::quant::{Codes, unpack};

/// Rows of a panel.
pub(super) const HEIGHT: usize = 16;

/// Bytes of a word: a u32 for each row.
pub(super) const WORD: usize = 4 * HEIGHT;

/// The layout of a segment's panels.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    pub(super) quant: Quant,
    pub(super) cols: usize,
}

/// Where things lie in a superblock of a quantised format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    /// Weights of a row in a superblock.
    pub(super) len: usize,
    /// Weights per group.
    pub(super) group: usize,
    /// Bits per code.
    pub(super) bits: usize,
    /// Whether there are minima.
    pub(super) min: bool,
    /// Whether groups have integer scales of their own.
    pub(super) sub: bool,
    /// Subtracted from every code.
    pub(super) zero: i32,
}

impl Shape {
    /// The shape of a quantised format; `None` for F32, F16 and BF16.
    pub(super) const fn of(quant: Quant) -> Option<Self> {
        let (len, group, bits, min, sub, zero) = match quant {
            Quant::Q4_0 => (32, 32, 4, false, false, 8),
            Quant::Q4_1 => (32, 32, 4, true, false, 0),
            Quant::Q5_0 => (32, 32, 5, false, false, 16),
            Quant::Q5_1 => (32, 32, 5, true, false, 0),
            Quant::Q8_0 => (32, 32, 8, false, false, 128),
            Quant::Q4_K => (256, 32, 4, true, true, 0),
            Quant::Q5_K => (256, 32, 5, true, true, 0),
            Quant::Q6_K => (256, 16, 6, false, true, 32),
            Quant::F32 | Quant::F16 | Quant::BF16 => return None,
        };
        Some(Self { len, group, bits, min, sub, zero })
    }

    /// Groups in a superblock.
    pub(super) const fn groups(self) -> usize {
        self.len / self.group
    }

    /// Byte at which the integer scales of group `g` begin (its minima follow).
    pub(super) const fn sub_at(self, g: usize) -> usize {
        let minima = if self.min { 2 } else { 1 };
        2 * HEIGHT * minima + g * HEIGHT * minima
    }

    /// Byte at which the codes of group `g` begin.
    pub(super) const fn codes_at(self, g: usize) -> usize {
        let minima = if self.min { 2 } else { 1 };
        let head = if self.sub { self.sub_at(self.groups()) } else { 2 * HEIGHT * minima };
        head + g * self.code_bytes()
    }

    /// Bytes of the high-bit word before a group's nibbles.
    pub(super) const fn high_bytes(self) -> usize {
        if self.bits == 5 || self.bits == 6 { WORD } else { 0 }
    }

    /// Bytes of a group's codes.
    pub(super) const fn code_bytes(self) -> usize {
        let per_word = if self.bits == 8 { 4 } else { 8 };
        self.high_bytes() + self.group / per_word * WORD
    }

    /// Bytes of a superblock.
    pub(super) const fn bytes(self) -> usize {
        self.codes_at(self.groups())
    }

    /// Byte and bit, inside a group's codes, of the low part of row `row`'s code `k`.
    fn low(self, row: usize, k: usize) -> (usize, usize) {
        if self.bits == 8 {
            (k / 4 * WORD + row * 4 + k % 4, 0)
        } else {
            (self.high_bytes() + k / 8 * WORD + row * 4 + k % 4, k / 4 % 2 * 4)
        }
    }

    /// Byte and bit of its high part (5 and 6 bits only).
    fn high(self, row: usize, k: usize) -> (usize, usize) {
        (row * 4 + k % 4, k / 4 * (self.bits - 4))
    }

    /// Writes a row's codes into a zeroed group: four at a time, which lie side by side in every word.
    fn put(self, group: &mut [u8], row: usize, codes: &[u8]) {
        let fours = codes.as_chunks::<4>().0.iter().map(|&four| u32::from_le_bytes(four));
        if self.bits == 8 {
            for (word, four) in group.chunks_exact_mut(WORD).zip(fours) {
                word[4 * row..][..4].copy_from_slice(&four.to_le_bytes());
            }
            return;
        }
        let (high, low) = group.split_at_mut(self.high_bytes());
        let width = self.bits - 4;
        let (mut high_bits, mut nibbles) = (0, 0);
        for (s, four) in fours.enumerate() {
            nibbles |= (four & 0x0f0f_0f0f) << (s % 2 * 4);
            if s % 2 == 1 {
                low[s / 2 * WORD + 4 * row..][..4].copy_from_slice(&nibbles.to_le_bytes());
                nibbles = 0;
            }
            // The parts of 5 or 6 bits stay inside their bytes.
            high_bits |= (four >> 4 & 0x0303_0303) << (s * width);
        }
        if !high.is_empty() {
            high[4 * row..][..4].copy_from_slice(&high_bits.to_le_bytes());
        }
    }

    fn get(self, group: &[u8], row: usize, k: usize) -> u8 {
        let (byte, bit) = self.low(row, k);
        if self.bits == 8 {
            return group[byte];
        }
        let mut code = (group[byte] >> bit) & 15;
        if self.bits > 4 {
            let (byte, bit) = self.high(row, k);
            code |= ((group[byte] >> bit) & ((1 << (self.bits - 4)) - 1)) << 4;
        }
        code
    }
}

impl Layout {
    /// `None` if `cols` is no multiple of the format's block, or the size overflows.
    pub(super) fn new(quant: Quant, cols: usize) -> Option<Self> {
        quant.row_bytes(cols)?.checked_mul(2 * HEIGHT)?;
        Some(Self { quant, cols })
    }

    /// Bytes of a row in ggml's layout.
    pub(super) fn row_bytes(self) -> usize {
        self.quant.row_bytes(self.cols).unwrap_or(0)
    }

    /// Bytes of a panel: a multiple of 32.
    pub(super) fn panel_bytes(self) -> usize {
        match Shape::of(self.quant) {
            Some(shape) => self.cols / shape.len * shape.bytes(),
            None => self.row_bytes() * HEIGHT,
        }
    }

    pub(super) fn view(self, bytes: &[u8]) -> Panel<'_> {
        debug_assert_eq!(bytes.len(), self.panel_bytes());
        Panel { layout: self, bytes }
    }

    /// Writes one row, in ggml's layout, into its place in a zeroed panel.
    pub(super) fn pack(self, panel: &mut [u8], row: usize, bytes: &[u8]) {
        let Some(shape) = Shape::of(self.quant) else {
            let size = self.quant.block_bytes();
            for (k, weight) in bytes.chunks_exact(size).enumerate() {
                panel[(k * HEIGHT + row) * size..][..size].copy_from_slice(weight);
            }
            return;
        };
        let blocks = bytes.chunks_exact(self.quant.block_bytes());
        for (out, block) in panel.chunks_exact_mut(shape.bytes()).zip(blocks) {
            let Codes { codes, len, d, m, scales, mins, .. } = unpack(self.quant, block);
            out[2 * row..][..2].copy_from_slice(&d.to_le_bytes());
            if shape.min {
                out[2 * (HEIGHT + row)..][..2].copy_from_slice(&m.to_le_bytes());
            }
            for g in 0..shape.groups() {
                if shape.sub {
                    out[shape.sub_at(g) + row] = scales[g] as u8;
                    if shape.min {
                        out[shape.sub_at(g) + HEIGHT + row] = mins[g] as u8;
                    }
                }
                let group = &mut out[shape.codes_at(g)..][..shape.code_bytes()];
                let codes = &codes[..len][g * shape.group..][..shape.group];
                shape.put(group, row, codes);
            }
        }
    }
}

/// The bytes of one panel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Panel<'a> {
    layout: Layout,
    bytes: &'a [u8],
}

impl Panel<'_> {
    /// Dequantises row `row` of the panel, bit for bit as the oracle does.
    pub(super) fn row(self, row: usize, out: &mut [f32]) {
        let Some(shape) = Shape::of(self.layout.quant) else {
            let size = self.layout.quant.block_bytes();
            for (k, w) in out.iter_mut().enumerate() {
                let at = &self.bytes[(k * HEIGHT + row) * size..][..size];
                *w = match *at {
                    [a, b, c, d] => f32::from_le_bytes([a, b, c, d]),
                    [a, b] if self.layout.quant == Quant::F16 => {
                        f16::from_le_bytes([a, b]).to_f32()
                    }
                    [a, b] => bf16::from_le_bytes([a, b]).to_f32(),
                    _ => f32::NAN, // no float format has another size
                };
            }
            return;
        };
        let half =
            |block: &[u8], at: usize| f16::from_le_bytes([block[at], block[at + 1]]).to_f32();
        for (out, block) in
            out.chunks_exact_mut(shape.len).zip(self.bytes.chunks_exact(shape.bytes()))
        {
            let d = half(block, 2 * row);
            let m = if shape.min { half(block, 2 * (HEIGHT + row)) } else { 0.0 };
            for (g, out) in out.chunks_exact_mut(shape.group).enumerate() {
                let (mut scale, mut min) = (d, m);
                if shape.sub {
                    scale *= f32::from(block[shape.sub_at(g) + row] as i8);
                    if shape.min {
                        min *= f32::from(block[shape.sub_at(g) + HEIGHT + row] as i8);
                    }
                }
                let group = &block[shape.codes_at(g)..][..shape.code_bytes()];
                for (k, w) in out.iter_mut().enumerate() {
                    *w = scale * ((i32::from(shape.get(group, row, k)) - shape.zero) as f32) + min;
                }
            }
        }
    }
}
