//! Queries, keys, weights and values in bfloat16, laid out as tiles read them.

use std::arch::x86_64::{
    __m512, __m512bh, __m512i, _mm_maskz_loadu_epi8, _mm256_maskz_loadu_epi16,
    _mm512_cvtepi8_epi32, _mm512_cvtepi32_ps, _mm512_cvtne2ps_pbh, _mm512_cvtph_ps,
    _mm512_loadu_ps, _mm512_loadu_si512, _mm512_permutexvar_epi16, _mm512_setzero_ps,
    _mm512_storeu_si512,
};
use std::ops::Range;

use half::{bf16, f16};

use super::{DEPTH, STEP};
use crate::KvType;
use crate::amx::{ROW, ROWS};
use crate::attention::Keys;
use crate::attention::plan::SEGMENT;
use crate::kv::{LANES, Vector};

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
            let depth = self.key_depth();
            let tiles = &mut self.keys[tile * depth..][..depth];
            if first >= count {
                tiles.fill(Tile([0; ROWS * ROW]));
                continue;
            }
            let lanes = Sixteen {
                keys,
                head,
                start: segment.start + first,
                count: ROWS.min(count - first),
            };
            for (at, line) in
                tiles.iter_mut().flat_map(|tile| tile.0.as_chunks_mut::<ROW>().0).enumerate()
            {
                let both = bfloats(lanes.dimension(2 * at), lanes.dimension(2 * at + 1));
                let words = _mm512_permutexvar_epi16(interleaving(), both);
                // SAFETY: a line.
                unsafe { _mm512_storeu_si512(line.as_mut_ptr().cast(), words) };
            }
        }
        let lines = self.value_stride() / ROW;
        let value = |at: usize| {
            (at < count).then(|| keys.kv.value_vector(head, keys.slot(segment.start + at)))
        };
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

/// Sixteen keys, or fewer.
struct Sixteen<'a> {
    keys: Keys<'a>,
    head: usize,
    /// Position of the first.
    start: usize,
    count: usize,
}

impl Sixteen<'_> {
    /// Dimension `d` of each as f32, zero past the last; codes are exact in bfloat16, their scale comes later. What
    /// follows the last key is undefined.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vl")]
    fn dimension(&self, d: usize) -> __m512 {
        let kv = self.keys.kv;
        if d >= kv.head_dim() {
            return _mm512_setzero_ps();
        }
        let lanes = |i: usize| {
            let slot = self.keys.slot(self.start + i);
            (kv.key_lanes(self.head, slot, d), slot % LANES)
        };
        if self.keys.grouped(self.start) {
            return widen(lanes(0).0, 0);
        }
        let mut apart = [0.0f32; LANES];
        for (i, out) in apart[..self.count].iter_mut().enumerate() {
            *out = match lanes(i) {
                (Vector::F16(bits), lane) => f16::from_bits(bits[lane]).to_f32(),
                (Vector::Int8(codes), lane) => f32::from(codes[lane]),
            };
        }
        // SAFETY: sixteen floats.
        unsafe { _mm512_loadu_ps(apart.as_ptr()) }
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
