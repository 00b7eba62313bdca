//! What a worker keeps while it goes over the keys of an item.

use super::TILE;
use crate::tile::{self, STRIP};

/// See the module. Rows are query rows times heads of a group.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// Scaled queries `[rows, dim]`.
    pub(super) queries: Vec<f32>,
    /// Scores, then weights `[rows, TILE]`.
    pub(super) scores: Vec<f32>,
    /// Weighted sums of the segment's values `[rows, padded(dim)]`.
    pub(super) sums: Vec<f32>,
    /// Largest score of each row in the segment so far.
    pub(super) max: Vec<f32>,
    /// Sum of weights of each row in the segment so far.
    pub(super) total: Vec<f32>,
    /// Keys of a tile `[TILE / STRIP, dim, STRIP]`.
    pub(super) keys: Vec<f32>,
    /// Values of a tile `[dim / STRIP, TILE, STRIP]`.
    pub(super) values: Vec<f32>,
    /// Sums, largest scores and totals of the segments before.
    before: (Vec<f32>, Vec<f32>, Vec<f32>),
}

/// Dimensions rounded up to whole tile columns.
pub(super) fn padded(dim: usize) -> usize {
    dim.next_multiple_of(tile::WIDTH)
}

impl Scratch {
    /// Makes room for `rows` rows that have seen nothing.
    pub(super) fn start(&mut self, dim: usize, rows: usize) {
        let grow = |v: &mut Vec<f32>, len: usize| v.resize(len.max(v.len()), 0.0);
        grow(&mut self.queries, rows * dim);
        grow(&mut self.scores, rows * TILE);
        grow(&mut self.keys, dim * TILE);
        grow(&mut self.values, TILE * dim.next_multiple_of(STRIP));
        for sums in [&mut self.sums, &mut self.before.0] {
            grow(sums, rows * padded(dim));
        }
        for each in [&mut self.max, &mut self.total, &mut self.before.1, &mut self.before.2] {
            grow(each, rows);
        }
        self.before.0[..rows * padded(dim)].fill(0.0);
        self.before.1[..rows].fill(f32::NEG_INFINITY);
        self.before.2[..rows].fill(0.0);
        self.start_segment(dim, rows);
    }

    /// Forgets the segment before.
    pub(super) fn start_segment(&mut self, dim: usize, rows: usize) {
        self.sums[..rows * padded(dim)].fill(0.0);
        self.max[..rows].fill(f32::NEG_INFINITY);
        self.total[..rows].fill(0.0);
    }

    /// Takes in the query of a row, scaled.
    pub(super) fn set_query(&mut self, row: usize, query: &[f32], scale: f32) {
        let to = &mut self.queries[row * query.len()..][..query.len()];
        to.iter_mut().zip(query).for_each(|(to, &q)| *to = q * scale);
    }

    /// Multiplies the scores, or weights, of `rows` rows by the scales of a tile's `count` keys, if they have any.
    pub(super) fn scale_scores(
        &mut self,
        rows: usize,
        count: usize,
        scale: impl Fn(usize) -> Option<f32>,
    ) {
        // Scores past the end become zeros; the softmax hides them whatever they are.
        let mut scales = [0.0; TILE];
        for (i, to) in scales[..count].iter_mut().enumerate() {
            let Some(scale) = scale(i) else { return };
            *to = scale;
        }
        for scores in self.scores.chunks_exact_mut(TILE).take(rows) {
            scores.iter_mut().zip(&scales).for_each(|(score, scale)| *score *= scale);
        }
    }

    /// Adds a row of the segment to those before.
    ///
    /// # Safety
    /// The machine has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn merge(&mut self, dim: usize, row: usize) {
        let at = row * padded(dim);
        let segment = Part {
            sums: &mut self.sums[at..][..dim],
            max: &mut self.max[row],
            total: &mut self.total[row],
        };
        let mut before = Part {
            sums: &mut self.before.0[at..][..dim],
            max: &mut self.before.1[row],
            total: &mut self.before.2[row],
        };
        // SAFETY: the caller's promise.
        unsafe { before.add(&segment) };
    }

    /// What a row comes to: in all segments, or in the last.
    pub(super) fn part(&mut self, dim: usize, row: usize, all: bool) -> Part<'_> {
        let (sums, max, total) = match all {
            true => (&mut self.before.0, &mut self.before.1, &mut self.before.2),
            false => (&mut self.sums, &mut self.max, &mut self.total),
        };
        Part {
            sums: &mut sums[row * padded(dim)..][..dim],
            max: &mut max[row],
            total: &mut total[row],
        }
    }
}

/// What some keys come to for a row.
pub(super) struct Part<'a> {
    /// Weighted sums of values.
    pub(super) sums: &'a mut [f32],
    /// Largest score.
    pub(super) max: &'a mut f32,
    /// Sum of weights.
    pub(super) total: &'a mut f32,
}

impl Part<'_> {
    /// Adds the keys of `later`, as if all had been weighed together.
    ///
    /// # Safety
    /// The machine has AVX2.
    #[target_feature(enable = "avx2")]
    pub(super) unsafe fn add(&mut self, later: &Part<'_>) {
        let saw_nothing = |part: &Part<'_>| *part.max == f32::NEG_INFINITY && *part.total == 0.0;
        if saw_nothing(later) {
            return;
        }
        if saw_nothing(self) {
            self.sums.copy_from_slice(later.sums);
            (*self.max, *self.total) = (*later.max, *later.total);
            return;
        }
        let max = self.max.max(*later.max);
        let (own, others) = ((*self.max - max).exp(), (*later.max - max).exp());
        *self.max = max;
        *self.total = own * *self.total + others * *later.total;
        for (sum, other) in self.sums.iter_mut().zip(later.sums.iter()) {
            *sum = own * *sum + others * *other;
        }
    }
}
