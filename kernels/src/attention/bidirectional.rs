//! Attention of short sequences in which every token sees every other: encoders. No cache, no mask, f32 throughout.

use std::cell::RefCell;
use std::ops::Range;

use crate::pool::Shards;
use crate::{Isa, Pool, PoolError, softmax};

/// Rows of scores made at once: a multiple of every tile's height, and with 256 keys they fit the first-level cache.
const ROWS: usize = 24;

/// Products of a query and a key that make a task worth handing out.
const WORK: usize = 16 * 1024;

/// Heads of one layer. A row holds its queries, keys and values, `heads * head_dim` of each, one after the other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BidirectionalShape {
    /// Query heads, and as many of keys and values.
    pub heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Multiplies every score (usually `1 / sqrt(head_dim)`).
    pub scale: f32,
}

/// `out[i, :]` = attention of row `i` over the rows of its own sequence. `lengths` are the rows of each sequence, one
/// after the other. Rows of `out` are `heads * head_dim` long, those of `qkv` three times as long.
///
/// A row's bits depend on its own sequence alone, and are the same with AVX2 and above; the oracle sums in f64.
/// # Panics
/// If the lengths do not add up to the rows of `qkv` and `out`.
pub fn bidirectional(
    isa: Isa,
    pool: &Pool,
    shape: BidirectionalShape,
    qkv: &[f32],
    lengths: &[usize],
    out: &mut [f32],
) -> Result<(), PoolError> {
    let width = shape.heads * shape.head_dim;
    let rows: usize = lengths.iter().sum();
    assert_eq!(qkv.len(), rows * 3 * width, "qkv of {rows} rows");
    assert_eq!(out.len(), rows * width, "out of {rows} rows");
    let mut items: Vec<(Range<usize>, Range<usize>)> = Vec::new();
    let mut first = 0;
    for &length in lengths.iter().filter(|&&length| length > 0) {
        let heads = WORK.div_ceil(length * length).min(shape.heads);
        let end = first + length;
        items.extend(
            (0..shape.heads)
                .step_by(heads)
                .map(|head| (first..end, head..shape.heads.min(head + heads))),
        );
        first = end;
    }
    let out = Shards::new(out);
    pool.run(items.len(), |item| {
        let (rows, heads) = items[item].clone();
        for head in heads {
            let part = Part { isa, shape, qkv, rows: rows.clone(), head, out };
            #[cfg(target_arch = "x86_64")]
            if isa.avx2() && shape.head_dim.is_multiple_of(crate::tile::WIDTH) {
                // SAFETY: the machine has AVX2; rows and heads of different items are disjoint, and lengths were
                // checked.
                unsafe { part.tiled() };
                continue;
            }
            // SAFETY: as above.
            unsafe { part.scalar() };
        }
    })
}

/// One head of one sequence.
struct Part<'a> {
    isa: Isa,
    shape: BidirectionalShape,
    qkv: &'a [f32],
    rows: Range<usize>,
    head: usize,
    out: Shards<f32>,
}

impl Part<'_> {
    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    /// The head's vector of row `row`: queries are `kind` 0, keys 1, values 2.
    fn vector(&self, row: usize, kind: usize) -> &[f32] {
        let (width, dim) = (self.width(), self.shape.head_dim);
        &self.qkv[(row * 3 + kind) * width + self.head * dim..][..dim]
    }

    /// The oracle.
    ///
    /// # Safety
    /// `out` has these rows, and nobody else touches this head of them.
    unsafe fn scalar(&self) {
        let dim = self.shape.head_dim;
        for row in self.rows.clone() {
            let query = self.vector(row, 0);
            let score = |key: usize| -> f64 {
                let products = query.iter().zip(self.vector(key, 1));
                products.map(|(&q, &k)| f64::from(q) * f64::from(k)).sum::<f64>()
                    * f64::from(self.shape.scale)
            };
            let scores: Vec<f64> = self.rows.clone().map(score).collect();
            let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
            let total: f64 = weights.iter().sum();
            // SAFETY: the caller's promise.
            let out = unsafe { self.out.slice(row * self.width() + self.head * dim, dim) };
            for (d, out) in out.iter_mut().enumerate() {
                let values = self.rows.clone().map(|key| f64::from(self.vector(key, 2)[d]));
                let sum: f64 = values.zip(&weights).map(|(value, weight)| value * weight).sum();
                *out = (sum / total) as f32;
            }
        }
    }

    /// Keys are turned once, and both products are those of plain matrices.
    ///
    /// # Safety
    /// As [`Part::scalar`]; the machine has AVX2 and the head's dimensions are a multiple of a tile's width.
    #[cfg(target_arch = "x86_64")]
    unsafe fn tiled(&self) {
        use crate::tile::{Product, WIDTH};
        let (width, dim, length) = (self.width(), self.shape.head_dim, self.rows.len());
        let stride = 3 * width;
        let padded = length.next_multiple_of(WIDTH);
        SCRATCH.with_borrow_mut(|Scratch { keys, scores }| {
            keys.resize(padded * dim, 0.0);
            scores.resize(ROWS * padded, 0.0);
            self.isa.vectorize(
                #[inline(always)]
                || self.turn_keys(keys, padded),
            );
            for first in (0..length).step_by(ROWS) {
                let rows = ROWS.min(length - first);
                let queries = self.vector(self.rows.start + first, 0).as_ptr();
                let product = Product {
                    rows,
                    depth: dim,
                    cols: padded,
                    a: queries,
                    a_stride: stride,
                    b: keys.as_ptr(),
                    b_stride: padded,
                    c: scores.as_mut_ptr(),
                    c_stride: padded,
                    fresh: true,
                };
                // SAFETY: `rows` rows of queries, `stride` apart; all dimensions of the keys; scores of `ROWS` rows.
                unsafe { product.compute(self.isa) };
                let weighed = &mut scores[..rows * padded];
                softmax::rows(self.isa, weighed, padded, length, self.shape.scale);
                let to = (self.rows.start + first) * width + self.head * dim;
                // SAFETY: weights of `rows` rows by `length` keys; as many rows of values, `stride` apart; the caller's
                // promise for `out`, of which each row is this head's.
                unsafe {
                    Product {
                        rows,
                        depth: length,
                        cols: dim,
                        a: scores.as_ptr(),
                        a_stride: padded,
                        b: self.vector(self.rows.start, 2).as_ptr(),
                        b_stride: stride,
                        c: self.out.slice(to, dim).as_mut_ptr(),
                        c_stride: width,
                        fresh: true,
                    }
                    .compute(self.isa);
                }
            }
        });
    }

    /// Keys by dimension, then key, `padded` in a row. Those past the last keep what was there: their scores are never
    /// read.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    fn turn_keys(&self, out: &mut [f32], padded: usize) {
        for (key, row) in self.rows.clone().enumerate() {
            for (out, &value) in out.chunks_exact_mut(padded).zip(self.vector(row, 1)) {
                out[key] = value;
            }
        }
    }
}

#[derive(Debug, Default)]
struct Scratch {
    keys: Vec<f32>,
    scores: Vec<f32>,
}

thread_local! {
    /// Kept between items: 56 KiB for 256 keys of 32 dimensions.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{BidirectionalShape, bidirectional};
    use crate::{Isa, Pool};

    fn numbers(count: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..count).map(|_| 2.0 * next()).collect()
    }

    fn run(
        isa: Isa,
        threads: usize,
        shape: BidirectionalShape,
        lengths: &[usize],
        qkv: &[f32],
    ) -> Vec<f32> {
        let mut out = vec![f32::NAN; qkv.len() / 3];
        bidirectional(isa, &Pool::new(threads), shape, qkv, lengths, &mut out).unwrap();
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn every_set_matches_the_oracle_and_company_changes_no_bit(
            heads in 1usize..5, dim in prop::sample::select(vec![8usize, 16, 32, 48]),
            lengths in prop::collection::vec(0usize..70, 1..5), seed in any::<u32>(),
        ) {
            let width = heads * dim;
            let shape = BidirectionalShape { heads, head_dim: dim, scale: 1.0 / (dim as f32).sqrt() };
            let qkv = numbers(lengths.iter().sum::<usize>() * 3 * width, seed);
            let expected = run(Isa::Scalar, 1, shape, &lengths, &qkv);
            let mut first: Option<Vec<f32>> = None;
            for isa in Isa::available().filter(|isa| *isa > Isa::Scalar) {
                let together = run(isa, 2, shape, &lengths, &qkv);
                for (a, b) in together.iter().zip(&expected) {
                    prop_assert!((a - b).abs() < 1e-5, "{a} {b}");
                }
                let mut row = 0;
                for &length in &lengths {
                    let own = row * 3 * width..(row + length) * 3 * width;
                    let alone = run(isa, 1, shape, &[length], &qkv[own]);
                    prop_assert_eq!(&alone, &together[row * width..(row + length) * width]);
                    row += length;
                }
                // Below the width of a tile the oracle is what computes.
                if dim.is_multiple_of(16) {
                    prop_assert_eq!(&together, first.get_or_insert_with(|| together.clone()));
                }
            }
        }
    }
}
