//! Activations as codes of eight bits (`eight_bit`).

use std::arch::x86_64::{
    __m256i, _mm_add_epi32, _mm_cvtsi128_si32, _mm_max_epi32, _mm_shuffle_epi32, _mm256_and_si256,
    _mm256_castps_si256, _mm256_castsi256_si128, _mm256_cvtps_epi32, _mm256_extracti128_si256,
    _mm256_loadu_ps, _mm256_madd_epi16, _mm256_maddubs_epi16, _mm256_max_epi32, _mm256_mul_ps,
    _mm256_packs_epi16, _mm256_packs_epi32, _mm256_permutevar8x32_epi32, _mm256_set1_epi8,
    _mm256_set1_epi16, _mm256_set1_epi32, _mm256_set1_ps, _mm256_setr_epi32, _mm256_storeu_si256,
};

use crate::eight_bit::{self, GROUP};
use crate::pool::Shards;
use crate::{Isa, Pool, PoolError};

/// Activations below which waking another thread costs more than it saves.
const SMALL: usize = 16 * 1024;

/// Rows of a tile.
const TILE: usize = crate::amx::ROWS;

/// Rows of arbitrary content past the last: a tile is always loaded whole.
const PADDING: usize = TILE - 1;

/// What a product needs to know of 32 codes.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
#[repr(C)]
pub(in crate::matrix) struct Group {
    /// An activation is its code times this. NaN or infinite if one of the 32 was.
    pub(in crate::matrix) scale: f32,
    /// `scale` times the sum of the codes.
    pub(in crate::matrix) sum: f32,
    /// Sum of the codes.
    pub(in crate::matrix) code_sum: i32,
    /// Sums of the first and last sixteen codes.
    pub(in crate::matrix) halves: [i32; 2],
}

/// Rows of activations in eight bits. Buffers are kept from product to product.
#[derive(Debug, Default)]
pub(in crate::matrix) struct Quantized {
    codes: Vec<i8>,
    groups: Vec<Group>,
    /// For AMX: by sixteen rows, by group, the scales of the rows and then the sums.
    tile_scales: Vec<[f32; 2 * TILE]>,
}

impl Quantized {
    /// Takes in `x`, whole rows of `cols` (a multiple of 32). The machine has AVX2.
    pub(super) fn set(
        &mut self,
        isa: Isa,
        pool: &Pool,
        x: &[f32],
        cols: usize,
    ) -> Result<(), PoolError> {
        let rows = x.len() / cols;
        let tiles = if isa == Isa::Amx { rows.div_ceil(TILE) * (cols / GROUP) } else { 0 };
        self.tile_scales.resize(tiles, [0.0; 2 * TILE]);
        let tile_scales = Shards::new(self.tile_scales.as_flattened_mut());
        self.codes.resize(x.len() + PADDING * cols, 0);
        self.groups.resize((x.len() + PADDING * cols) / GROUP, Group::default());
        let (codes, groups) = (Shards::new(&mut self.codes), Shards::new(&mut self.groups));
        let height = SMALL.div_ceil(cols);
        pool.run(rows.div_ceil(height), |task| {
            let (start, end) = (task * height * cols, ((task + 1) * height).min(rows) * cols);
            // SAFETY: these rows are of this task alone; the machine has AVX2.
            unsafe {
                let codes = codes.slice(start, end - start);
                let groups = groups.slice(start / GROUP, (end - start) / GROUP);
                quantize(&x[start..end], codes, groups);
                if tiles > 0 {
                    for (row, groups) in groups.chunks(cols / GROUP).enumerate() {
                        let row = task * height + row;
                        for (g, group) in groups.iter().enumerate() {
                            let at = (row / TILE * (cols / GROUP) + g) * 2 * TILE + row % TILE;
                            tile_scales.slice(at, 1)[0] = group.scale;
                            tile_scales.slice(at + TILE, 1)[0] = group.sum;
                        }
                    }
                }
            }
        })
    }

    /// Rows `rows` of `cols` activations.
    pub(super) fn rows(&self, rows: std::ops::Range<usize>, cols: usize) -> Rows<'_> {
        Rows {
            codes: &self.codes[rows.start * cols..(rows.end + PADDING) * cols],
            groups: &self.groups[rows.start * cols / GROUP..(rows.end + PADDING) * cols / GROUP],
            cols,
            tile_scales: &self.tile_scales,
            first: rows.start,
        }
    }
}

/// Some rows of activations.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rows<'a> {
    codes: &'a [i8],
    groups: &'a [Group],
    cols: usize,
    /// Of all rows.
    tile_scales: &'a [[f32; 2 * TILE]],
    /// Number of the first row among all.
    first: usize,
}

impl Rows<'_> {
    pub(super) fn len(&self) -> usize {
        self.codes.len() / self.cols - PADDING
    }

    /// Codes and groups of row `row` from column `start` on, a multiple of 32. [`PADDING`] rows are
    /// readable after the last.
    pub(super) fn row(&self, row: usize, start: usize) -> (*const i8, *const Group) {
        let at = row * self.cols + start;
        (self.codes[at..].as_ptr(), self.groups[at / GROUP..].as_ptr())
    }

    /// Bytes from a row's codes to the next one's.
    pub(super) fn stride(&self) -> usize {
        self.cols
    }

    /// For AMX: scales, then sums, of the sixteen rows from `row` on, which begin a tile, from column `start` on; the next
    /// group's follow.
    pub(super) fn tile_scales(&self, row: usize, start: usize) -> *const f32 {
        let tile = (self.first + row) / TILE;
        self.tile_scales[tile * (self.cols / GROUP) + start / GROUP..].as_ptr().cast()
    }
}

/// Codes and groups of `x`, whose length is a multiple of 32.
#[target_feature(enable = "avx2")]
pub(in crate::matrix) fn quantize(x: &[f32], codes: &mut [i8], groups: &mut [Group]) {
    let (x, codes) = (x.as_chunks::<GROUP>().0, codes.as_chunks_mut::<GROUP>().0);
    for ((x, codes), group) in x.iter().zip(codes).zip(groups) {
        *group = quantize_group(x, codes);
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn quantize_group(x: &[f32; GROUP], codes: &mut [i8; GROUP]) -> Group {
    // SAFETY: eight floats each.
    let x: [_; 4] = std::array::from_fn(|i| unsafe { _mm256_loadu_ps(x[8 * i..].as_ptr()) });
    // As integers, magnitudes are in the order of the floats, with NaN above infinity.
    let magnitude =
        |i: usize| _mm256_and_si256(_mm256_castps_si256(x[i]), _mm256_set1_epi32(i32::MAX));
    let four = _mm256_max_epi32(
        _mm256_max_epi32(magnitude(0), magnitude(1)),
        _mm256_max_epi32(magnitude(2), magnitude(3)),
    );
    let max = _mm_max_epi32(_mm256_castsi256_si128(four), _mm256_extracti128_si256::<1>(four));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b0100_1110>(max));
    let max = _mm_max_epi32(max, _mm_shuffle_epi32::<0b1011_0001>(max));
    let max = f32::from_bits(_mm_cvtsi128_si32(max).cast_unsigned());
    let (scale, inverse) = eight_bit::scale(max);

    let inverse = _mm256_set1_ps(inverse);
    let rounded = x.map(|x| _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)));
    // Packing works on halves of registers: the permutation puts fours of codes back in order.
    let packed = _mm256_packs_epi16(
        _mm256_packs_epi32(rounded[0], rounded[1]),
        _mm256_packs_epi32(rounded[2], rounded[3]),
    );
    let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    let packed: __m256i = _mm256_permutevar8x32_epi32(packed, order);
    // SAFETY: 32 bytes.
    unsafe { _mm256_storeu_si256(codes.as_mut_ptr().cast(), packed) };

    let fours = _mm256_maddubs_epi16(_mm256_set1_epi8(1), packed);
    let fours = _mm256_madd_epi16(fours, _mm256_set1_epi16(1));
    let sum = |x| {
        let x = _mm_add_epi32(x, _mm_shuffle_epi32::<0b0100_1110>(x));
        _mm_cvtsi128_si32(_mm_add_epi32(x, _mm_shuffle_epi32::<0b1011_0001>(x)))
    };
    let halves = [sum(_mm256_castsi256_si128(fours)), sum(_mm256_extracti128_si256::<1>(fours))];
    let code_sum = halves[0] + halves[1];
    Group { scale, sum: scale * code_sum as f32, code_sum, halves }
}
