//! Queries, keys, weights and values in bfloat16, laid out as tiles read them.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm_maskz_loadu_epi8, _mm256_maskz_loadu_epi16,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtne2ps_pbh, _mm512_cvtph_ps,
    _mm512_loadu_si512, _mm512_permutexvar_epi16, _mm512_setzero_ps, _mm512_storeu_si512,
};
use std::ops::Range;

use half::bf16;

use super::{DEPTH, STEP};
use crate::amx::{ROW, ROWS};
use crate::attention::Keys;
use crate::attention::plan::SEGMENT;
use crate::kv::{LANES, Vector};
use crate::{KvLayer, KvType};

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
    apart: Apart,
}

/// Keys that lie apart, brought together.
#[derive(Debug, Default)]
struct Apart {
    bits: Vec<u16>,
    codes: Vec<i8>,
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

    /// Takes in `rows` queries of `dim`. Rows are padded to whole tiles.
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
            queries.chunks(dim).zip(self.queries.chunks_exact_mut(depth)).take(rows)
        {
            for (line, from) in lines.iter_mut().zip(query.chunks(DEPTH)) {
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
        let mut slots = [0; SEGMENT];
        let slots = &mut slots[..count];
        keys.slots(segment.start, slots);
        if keys.kv.kind() == KvType::Int8 {
            let none = || Box::new([[0.0; SEGMENT]; 2]);
            let [of_keys, of_values] = &mut **self.scales.get_or_insert_with(none);
            for (i, &slot) in slots.iter().enumerate() {
                of_keys[i] = keys.kv.key_scale(head, slot).unwrap_or(1.0);
                of_values[i] = keys.kv.value_scale(head, slot).unwrap_or(1.0);
            }
            // Weights past the end are 0 already; whatever was there before may be no number.
            of_values[count..].fill(0.0);
        } else {
            self.scales = None;
        }
        let depth = self.key_depth();
        let steps = count.div_ceil(STEP) * STEP;
        let grouped = keys.grouped(segment.start);
        for (i, tiles) in self.keys.chunks_exact_mut(depth).take(steps / ROWS).enumerate() {
            let slots = &slots[count.min(i * ROWS)..count.min((i + 1) * ROWS)];
            match slots.first() {
                Some(&slot) if grouped => tile_keys(keys.kv.key_group(head, slot), tiles),
                // Where sixteen keys lie apart they are brought together first.
                Some(_) => tile_keys(gather(keys.kv, head, slots, &mut self.apart), tiles),
                None => tiles.fill(Tile([0; ROWS * ROW])),
            }
        }
        let lines = self.value_stride() / ROW;
        let value = |at: usize| slots.get(at).map(|&slot| keys.kv.value_vector(head, slot));
        for (pair, lines) in self.values.chunks_exact_mut(lines).take(steps / 2).enumerate() {
            let (first, second) = (value(2 * pair), value(2 * pair + 1));
            for (d, line) in lines.iter_mut().enumerate().take(self.dim.div_ceil(ROWS)) {
                let part = |value: Option<Vector<'_>>| match value {
                    Some(value) => widen(value, d * ROWS),
                    None => _mm512_setzero_ps(),
                };
                interleave(part(first), part(second), &mut line.0);
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

/// Lays sixteen keys, `[dim][LANES]`, out as tiles.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512bf16")]
fn tile_keys(group: Vector<'_>, tiles: &mut [Tile]) {
    for (i, tile) in tiles.iter_mut().enumerate() {
        for (p, line) in tile.0.as_chunks_mut::<ROW>().0.iter_mut().enumerate() {
            let d = i * DEPTH + 2 * p;
            interleave(widen(group, d * LANES), widen(group, (d + 1) * LANES), line);
        }
    }
}

/// The keys in up to sixteen slots as they would lie side by side: `[dim][LANES]`, in `out`.
fn gather<'a>(kv: &KvLayer, head: usize, slots: &[usize], out: &'a mut Apart) -> Vector<'a> {
    fn lanes<T: Copy + Default>(
        out: &mut Vec<T>,
        dim: usize,
        lane: usize,
        group: &[T],
        from: usize,
    ) {
        out.resize(dim * LANES, T::default());
        for (to, group) in out.chunks_exact_mut(LANES).zip(group.chunks_exact(LANES)) {
            to[lane] = group[from];
        }
    }
    let dim = kv.head_dim();
    for (lane, &slot) in slots.iter().enumerate() {
        match kv.key_group(head, slot) {
            Vector::F16(group) => lanes(&mut out.bits, dim, lane, group, slot % LANES),
            Vector::Int8(group) => lanes(&mut out.codes, dim, lane, group, slot % LANES),
        }
    }
    match kv.kind() {
        KvType::F16 => Vector::F16(&out.bits),
        KvType::Int8 => Vector::Int8(&out.codes),
    }
}

/// Sixteen elements from `from` on as f32, zeros past the end. Codes are exact in bfloat16; their scale comes later.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn widen(vector: Vector<'_>, from: usize) -> __m512 {
    let mask = |len: usize| match len.saturating_sub(from) {
        16.. => u16::MAX,
        few => (1 << few) - 1,
    };
    // SAFETY: masked elements are not read.
    unsafe {
        match vector {
            Vector::F16(bits) => {
                let at = bits.as_ptr().wrapping_add(from);
                _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(mask(bits.len()), at.cast()))
            }
            Vector::Int8(codes) => {
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

/// Writes pairs of an element of `first` and one of `second`, in bfloat16.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512bf16")]
fn interleave(first: __m512, second: __m512, out: &mut [u8; ROW]) {
    let words = _mm512_permutexvar_epi16(interleaving(), bfloats(first, second));
    // SAFETY: 64 bytes.
    unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), words) };
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
