//! Queries, keys, weights and values in bfloat16, laid out as tiles read them.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm_maskz_loadu_epi8, _mm256_maskz_loadu_epi16,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtne2ps_pbh, _mm512_cvtph_ps,
    _mm512_loadu_si512, _mm512_permutexvar_epi16, _mm512_setzero_ps, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi32, _mm512_unpacklo_epi64,
};
use std::ops::Range;

use half::bf16;

use super::{DEPTH, STEP};
use crate::KvType;
use crate::amx::{ROW, ROWS};
use crate::attention::Keys;
use crate::attention::plan::SEGMENT;
use crate::attention::x86::scratch::lanes;
use crate::kv::Vector;

/// Bytes of a whole tile.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
pub(super) struct Tile([u8; ROWS * ROW]);

/// A cache line.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(64))]
struct Line([u8; ROW]);

/// Of keys and of values.
pub(super) type Scales = [[f32; SEGMENT]; 2];

/// See the module.
#[derive(Debug, Default)]
pub(in crate::attention::x86) struct Operands {
    /// Dimensions of a head.
    dim: usize,
    /// Rows of queries, `key_depth` lines each, zeros past the dimensions.
    queries: Vec<Line>,
    /// Sixteen keys by `key_depth` tiles of 32 dimensions: line `p` of a tile has dimensions `2 p` and `2 p + 1` of each key.
    keys: Vec<Tile>,
    /// Lines of pairs of keys: a word holds a dimension of both, `value_stride` bytes a pair.
    values: Vec<Line>,
    /// Scores `[ROWS, SEGMENT]`, f32.
    scores: Vec<Line>,
    /// Weights `[ROWS, SEGMENT]`, bfloat16.
    weights: Vec<Line>,
    /// Weighted sums `[ROWS, value_stride]`, f32.
    sums: Vec<Line>,
    /// What the scores of keys and the weights of values are multiplied by, where they are codes.
    scales: Option<Box<Scales>>,
}

/// A row of scores, and of the weights they become.
pub(super) struct Row<'a> {
    pub(super) scores: &'a mut [f32],
    /// Bfloat16.
    pub(super) weights: &'a mut [u16],
    /// What scores and weights are multiplied by, if anything.
    pub(super) scales: Option<&'a Scales>,
}

impl Operands {
    /// Tiles of 32 dimensions in a key.
    pub(super) fn key_depth(&self) -> usize {
        self.dim.div_ceil(DEPTH)
    }

    /// Bytes of a pair of keys' values, and of a row of sums: whole steps of 64 dimensions.
    pub(super) fn value_stride(&self) -> usize {
        self.dim.div_ceil(4 * ROWS) * 4 * ROW
    }

    /// Takes in `rows` queries of `dim`, `lanes(dim)` apart. Rows are padded to whole tiles.
    pub(super) fn set_queries(&mut self, dim: usize, queries: &[f32], rows: usize) {
        self.dim = dim;
        let (depth, stride) = (self.key_depth(), self.value_stride());
        let grow = |v: &mut Vec<Line>, lines: usize| v.resize(lines.max(v.len()), Line([0; ROW]));
        grow(&mut self.queries, rows.next_multiple_of(ROWS) * depth);
        grow(&mut self.values, SEGMENT / 2 * stride / ROW);
        grow(&mut self.sums, ROWS * stride / ROW);
        grow(&mut self.scores, ROWS * SEGMENT * size_of::<f32>() / ROW);
        grow(&mut self.weights, ROWS * SEGMENT * size_of::<u16>() / ROW);
        let tiles = SEGMENT / ROWS * depth;
        self.keys.resize(tiles.max(self.keys.len()), Tile([0; ROWS * ROW]));
        for (query, lines) in
            queries.chunks(lanes(dim)).zip(self.queries.chunks_exact_mut(depth)).take(rows)
        {
            for (line, from) in lines.iter_mut().zip(query[..dim].chunks(DEPTH)) {
                *line = Line([0; ROW]);
                for (to, &x) in line.0.as_chunks_mut::<2>().0.iter_mut().zip(from) {
                    *to = bf16::from_f32(x).to_le_bytes();
                }
            }
        }
        self.queries[rows * depth..rows.next_multiple_of(ROWS) * depth].fill(Line([0; ROW]));
    }

    /// Takes in the keys and values of a segment; past its end there are zeros up to a whole step.
    ///
    /// # Safety
    /// The machine has AVX-512 and its BF16; the queries were set; slots were checked.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    pub(super) unsafe fn set_segment(
        &mut self,
        keys: Keys<'_>,
        head: usize,
        segment: Range<usize>,
    ) {
        let count = segment.len();
        let dim = self.dim;
        if keys.kv.kind() == KvType::Int8 {
            let none = || Box::new([[0.0; SEGMENT]; 2]);
            let [of_keys, of_values] = &mut **self.scales.get_or_insert_with(none);
            for (i, at) in segment.clone().enumerate() {
                let slot = keys.slot(at);
                of_keys[i] = keys.kv.key_scale(head, slot).unwrap_or(1.0);
                of_values[i] = keys.kv.value_scale(head, slot).unwrap_or(1.0);
            }
            // Weights past the end are 0 already; whatever was there before may be no number.
            of_values[count..].fill(0.0);
        } else {
            self.scales = None;
        }
        for tile in 0..count.div_ceil(STEP) * STEP / ROWS {
            let first = tile * ROWS;
            for d in 0..self.key_depth() {
                let mut rows: [__m512i; ROWS] = [_mm512_setzero_si512(); ROWS];
                for (i, row) in rows.iter_mut().enumerate().take(count.saturating_sub(first)) {
                    let key = keys.kv.key(head, keys.slot(segment.start + first + i));
                    let low = widen(key, d * DEPTH);
                    *row = bfloats(low, widen(key, d * DEPTH + ROWS));
                }
                let lines = transpose(rows);
                let to = self.keys[tile * dim.div_ceil(DEPTH) + d].0.as_mut_ptr();
                for (p, line) in lines.into_iter().enumerate() {
                    // SAFETY: a tile has sixteen lines.
                    unsafe { _mm512_storeu_si512(to.add(p * ROW).cast(), line) };
                }
            }
        }
        let lines = self.value_stride() / ROW;
        let value =
            |at: usize| (at < count).then(|| keys.kv.value(head, keys.slot(segment.start + at)));
        for pair in 0..count.div_ceil(STEP) * STEP / 2 {
            let (first, second) = (value(2 * pair), value(2 * pair + 1));
            for d in 0..dim.div_ceil(ROWS) {
                let part = |value: Option<Vector<'_>>| match value {
                    Some(value) => widen(value, d * ROWS),
                    None => _mm512_setzero_ps(),
                };
                let both = bfloats(part(first), part(second));
                let words = _mm512_permutexvar_epi16(interleaving(), both);
                let to = self.values[pair * lines + d].0.as_mut_ptr();
                // SAFETY: a line.
                unsafe { _mm512_storeu_si512(to.cast(), words) };
            }
        }
    }

    /// Where the sixteen queries from `first` on begin, and how many bytes they are apart.
    pub(super) fn queries(&self, first: usize) -> (*const u8, usize) {
        let depth = self.key_depth();
        let tile = &self.queries[first * depth..][..ROWS * depth];
        (tile.as_ptr().cast(), depth * ROW)
    }

    /// The tiles of sixteen keys.
    pub(super) fn keys(&self, tile: usize) -> *const Tile {
        let depth = self.key_depth();
        self.keys[tile * depth..][..depth].as_ptr()
    }

    /// Where the scores of the keys from `key` on go: rows are `SEGMENT` apart.
    pub(super) fn scores(&mut self, key: usize) -> *mut f32 {
        self.scores.as_mut_ptr().cast::<f32>().wrapping_add(key)
    }

    /// Where the rows of weights begin.
    pub(super) fn weights(&self) -> *const u16 {
        self.weights.as_ptr().cast()
    }

    /// Where the values in the dimensions from `d` on begin: pairs of keys are `value_stride` bytes apart.
    pub(super) fn values(&self, d: usize) -> *const u8 {
        self.values[d / ROWS..].as_ptr().cast()
    }

    /// Where the sums in the dimensions from `d` on go.
    pub(super) fn sums_at(&mut self, d: usize) -> *mut f32 {
        self.sums[d / ROWS..].as_mut_ptr().cast()
    }

    /// The first `keys` scores and weights of row `row`.
    pub(super) fn row(&mut self, row: usize, keys: usize) -> Row<'_> {
        assert!(row < ROWS && keys <= SEGMENT, "row {row}, {keys} keys");
        // SAFETY: lines are initialised bytes without padding, aligned to 64; both buffers have ROWS rows of SEGMENT.
        unsafe {
            let scores = self.scores.as_mut_ptr().cast::<f32>().add(row * SEGMENT);
            let weights = self.weights.as_mut_ptr().cast::<u16>().add(row * SEGMENT);
            Row {
                scores: std::slice::from_raw_parts_mut(scores, keys),
                weights: std::slice::from_raw_parts_mut(weights, keys),
                scales: self.scales.as_deref(),
            }
        }
    }

    /// The sums of row `row`.
    pub(super) fn sums(&self, row: usize) -> &[f32] {
        let lines = self.value_stride() / ROW;
        let lines = &self.sums[row * lines..][..lines];
        // SAFETY: as above.
        unsafe { std::slice::from_raw_parts(lines.as_ptr().cast(), lines.len() * ROWS) }
    }
}

/// Sixteen elements from `from` on as f32, zeros past the end. Codes are exact in bfloat16; their scale comes later.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen(vector: Vector<'_>, from: usize) -> __m512 {
    let mask = |len: usize| (1u32 << len.saturating_sub(from).min(16)).wrapping_sub(1) as u16;
    // SAFETY: masked elements are not read.
    unsafe {
        match vector {
            Vector::F16(bits) => {
                let at = bits.as_ptr().wrapping_add(from);
                _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(bits.len()), at.cast()))
            }
            Vector::Int8(codes, _) => {
                let at = codes.as_ptr().wrapping_add(from);
                let codes = _mm_maskz_loadu_epi8(mask(codes.len()), at);
                _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes))
            }
        }
    }
}

/// 32 floats as bfloat16, nearest even.
#[inline]
#[target_feature(enable = "avx512f,avx512bf16")]
pub(super) fn bfloats(low: __m512, high: __m512) -> __m512i {
    // SAFETY: both are 512 bits.
    unsafe { std::mem::transmute::<__m512bh, __m512i>(_mm512_cvtne2ps_pbh(high, low)) }
}

/// Brings element `i` of the lower and of the upper half together.
#[inline]
#[target_feature(enable = "avx512f")]
fn interleaving() -> __m512i {
    const ORDER: [u16; 32] = {
        let mut order = [0; 32];
        let mut i = 0;
        while i < 32 {
            order[i] = (i / 2 + i % 2 * 16) as u16;
            i += 1;
        }
        order
    };
    // SAFETY: 64 bytes.
    unsafe { _mm512_loadu_si512(ORDER.as_ptr().cast()) }
}

/// Words `[i, j]` of sixteen registers become `[j, i]`.
#[inline]
#[target_feature(enable = "avx512f")]
fn transpose(x: [__m512i; 16]) -> [__m512i; 16] {
    let mut a = x;
    for i in 0..8 {
        a[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
        a[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
    }
    // Words `c` of four rows, in each quarter of a register: row 4 r + c of `b`.
    let mut b = a;
    for r in 0..4 {
        let [p, q, s, t] = [a[4 * r], a[4 * r + 1], a[4 * r + 2], a[4 * r + 3]];
        b[4 * r] = _mm512_unpacklo_epi64(p, s);
        b[4 * r + 1] = _mm512_unpackhi_epi64(p, s);
        b[4 * r + 2] = _mm512_unpacklo_epi64(q, t);
        b[4 * r + 3] = _mm512_unpackhi_epi64(q, t);
    }
    // Quarters: column 4 k + c is quarter k of rows c, 4 + c, 8 + c, 12 + c.
    let mut out = b;
    for c in 0..4 {
        let low = _mm512_shuffle_i32x4::<0b1000_1000>(b[c], b[4 + c]);
        let high = _mm512_shuffle_i32x4::<0b1101_1101>(b[c], b[4 + c]);
        let low_2 = _mm512_shuffle_i32x4::<0b1000_1000>(b[8 + c], b[12 + c]);
        let high_2 = _mm512_shuffle_i32x4::<0b1101_1101>(b[8 + c], b[12 + c]);
        out[c] = _mm512_shuffle_i32x4::<0b1000_1000>(low, low_2);
        out[8 + c] = _mm512_shuffle_i32x4::<0b1101_1101>(low, low_2);
        out[4 + c] = _mm512_shuffle_i32x4::<0b1000_1000>(high, high_2);
        out[12 + c] = _mm512_shuffle_i32x4::<0b1101_1101>(high, high_2);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Isa;

    #[test]
    fn transposing_swaps_rows_and_columns() {
        if !Isa::Avx512.avx512() {
            println!("no AVX-512 here: nothing to test");
            return;
        }
        let x: [[u32; 16]; 16] =
            std::array::from_fn(|i| std::array::from_fn(|j| (16 * i + j) as u32));
        // SAFETY: the machine has AVX-512; both types are sixteen times sixteen words.
        let out = unsafe {
            let x = std::mem::transmute::<[[u32; 16]; 16], [__m512i; 16]>(x);
            std::mem::transmute::<[__m512i; 16], [[u32; 16]; 16]>(transpose(x))
        };
        for (i, row) in out.iter().enumerate() {
            for (j, &word) in row.iter().enumerate() {
                assert_eq!(word as usize, 16 * j + i);
            }
        }
    }
}
