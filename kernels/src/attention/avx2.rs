//! Attention with AVX2: keys and values pass once per item, in tiles of 64, shared by its rows and heads.

pub(super) mod mass;
mod narrow;
mod softmax;
mod wide;

use std::cell::RefCell;

use super::plan::{Item, Merge, Plan, ROWS};
use super::{AttentionShape, Keys, SequenceView};
use crate::pool::Shards;
use crate::{Pool, PoolError, tile};

/// Keys of a tile.
const TILE: usize = 64;

/// Rows (times heads) up to which keys and values are used straight from f16; above, a tile is
/// converted first, keys transposed.
pub(super) const NARROW: usize = 8;

/// A batch, its shapes checked.
pub(super) struct Batch<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) sequences: &'a [SequenceView<'a>],
    pub(super) q: &'a [f32],
    pub(super) stride: usize,
    pub(super) out: Shards<f32>,
}

impl Batch<'_> {
    /// Computes everything; the machine has AVX2, FMA and F16C.
    pub(super) fn compute<'k>(
        &self,
        pool: &Pool,
        keys: impl Fn(usize) -> Keys<'k> + Sync,
    ) -> Result<(), PoolError> {
        let plan = Plan::new(self.shape, self.sequences);
        // A partial result: the weighted sum of values, then the largest score and the sum of weights.
        let width = self.shape.head_dim + 2;
        let mut partials = vec![0.0f32; plan.partials * width];
        let shards = Shards::new(&mut partials);
        pool.run(plan.items.len(), |index| {
            let item = &plan.items[index];
            SCRATCH.with_borrow_mut(|scratch| {
                // SAFETY: the machine has the features.
                unsafe { self.item(item, keys(item.sequence), scratch) };
                let (dim, group) = (self.shape.head_dim, self.shape.heads / self.shape.kv_heads);
                for row in 0..item.rows.len() * group {
                    let (sum, max, total) = scratch.result(dim, row);
                    if let Some(first) = item.partial {
                        // SAFETY: the plan gave these rows of the buffer to this item alone.
                        let out = unsafe { shards.slice((first + row) * width, width) };
                        out[..dim].copy_from_slice(sum);
                        (out[dim], out[dim + 1]) = (max, total);
                    } else {
                        let out = self.out(item, row);
                        let inverse = 1.0 / total;
                        out.iter_mut().zip(sum).for_each(|(out, &sum)| *out = sum * inverse);
                    }
                }
            });
        })?;
        pool.run(plan.merges.len(), |index| self.merge(&plan.merges[index], &partials))
    }

    /// The output of row-and-head `row` of an item.
    #[expect(clippy::mut_from_ref, reason = "rows of different items are disjoint")]
    fn out(&self, item: &Item, row: usize) -> &mut [f32] {
        let (dim, group) = (self.shape.head_dim, self.shape.heads / self.shape.kv_heads);
        let sequence = &self.sequences[item.sequence];
        let batch_row = sequence.first_row + item.rows.start + row / group;
        let head = item.kv_head * group + row % group;
        // SAFETY: rows are inside `out` and belong to one sequence (checked before), and in a plan each
        // row and head is written by one item or one merge.
        unsafe { self.out.slice((batch_row * self.shape.heads + head) * dim, dim) }
    }

    /// Combines the partial results of some rows, in the order of the keys.
    fn merge(&self, merge: &Merge, partials: &[f32]) {
        let (dim, group) = (self.shape.head_dim, self.shape.heads / self.shape.kv_heads);
        let rows = merge.item.rows.len() * group;
        let partial = |split: usize, row: usize| {
            &partials[(merge.first_partial + split * rows + row) * (dim + 2)..][..dim + 2]
        };
        for row in 0..rows {
            let max =
                (0..merge.splits).map(|s| partial(s, row)[dim]).fold(f32::NEG_INFINITY, f32::max);
            let out = self.out(&merge.item, row);
            out.fill(0.0);
            let mut total = 0.0;
            for split in 0..merge.splits {
                let part = partial(split, row);
                if part[dim] == f32::NEG_INFINITY && part[dim + 1] == 0.0 {
                    continue; // saw no key
                }
                let factor = (part[dim] - max).exp();
                total += factor * part[dim + 1];
                out.iter_mut().zip(part).for_each(|(out, &sum)| *out += factor * sum);
            }
            let inverse = 1.0 / total;
            out.iter_mut().for_each(|out| *out *= inverse);
        }
    }

    /// Leaves sums, largest scores and totals of an item's rows in `scratch`.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn item(&self, item: &Item, keys: Keys<'_>, scratch: &mut Scratch) {
        let shape = self.shape;
        let (dim, group) = (shape.head_dim, shape.heads / shape.kv_heads);
        let sequence = &self.sequences[item.sequence];
        let rows = item.rows.len() * group;
        let narrow = rows <= NARROW && dim.is_multiple_of(8);
        scratch.start(dim, rows);
        for row in 0..rows {
            let batch_row = sequence.first_row + item.rows.start + row / group;
            let head = item.kv_head * group + row % group;
            let q = &self.q[batch_row * self.stride + head * dim..][..dim];
            let scaled = scratch.queries[row * dim..][..dim].iter_mut();
            scaled.zip(q).for_each(|(scaled, &q)| *scaled = q * shape.scale);
        }
        let base = sequence.context - sequence.rows + item.rows.start;
        for start in item.keys.clone().step_by(TILE) {
            let count = TILE.min(item.keys.end - start);
            // SAFETY: the features are there; the scratch was sized for these rows, and slots were checked.
            unsafe {
                if narrow {
                    narrow::scores(dim, rows, keys, item.kv_head, start, count, scratch);
                } else {
                    wide::scores(dim, rows, keys, item.kv_head, start, count, scratch);
                }
                for row in 0..rows {
                    let visible = shape.visible(base + row / group);
                    let from = visible.start.clamp(start, start + count) - start;
                    let to = visible.end.clamp(start, start + count) - start;
                    softmax::row(shape, sequence.bias, start, from..to, row, dim, scratch);
                }
                if narrow {
                    narrow::accumulate(dim, rows, keys, item.kv_head, start, count, scratch);
                } else {
                    wide::accumulate(dim, rows, keys, item.kv_head, start, count, scratch);
                }
            }
        }
    }
}

thread_local! {
    /// Kept between items: at most ~600 KiB for heads of 256 dimensions.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// What a worker keeps while it goes over the keys of an item.
#[derive(Debug, Default)]
struct Scratch {
    /// Scaled queries `[rows, dim]`.
    queries: Vec<f32>,
    /// Scores, then weights `[rows, TILE]`.
    scores: Vec<f32>,
    /// Weighted sums of values `[rows, padded(dim)]`.
    sums: Vec<f32>,
    /// Largest score of each row so far.
    max: Vec<f32>,
    /// Sum of weights of each row so far.
    total: Vec<f32>,
    /// Transposed keys of a tile: `[TILE / 16, dim, 16]`.
    keys: Vec<f32>,
    /// Values of a tile `[TILE, padded(dim)]`.
    values: Vec<f32>,
}

/// Dimensions rounded up to whole tile columns.
fn padded(dim: usize) -> usize {
    dim.next_multiple_of(tile::WIDTH)
}

impl Scratch {
    fn start(&mut self, dim: usize, rows: usize) {
        let grow = |v: &mut Vec<f32>, len: usize| v.resize(len.max(v.len()), 0.0);
        let most = rows.max(ROWS);
        grow(&mut self.queries, most * dim);
        grow(&mut self.scores, most * TILE);
        grow(&mut self.sums, most * padded(dim));
        grow(&mut self.max, most);
        grow(&mut self.total, most);
        grow(&mut self.keys, TILE * dim);
        grow(&mut self.values, TILE * padded(dim));
        self.sums[..rows * padded(dim)].fill(0.0);
        self.max[..rows].fill(f32::NEG_INFINITY);
        self.total[..rows].fill(0.0);
    }

    /// Weighted sum of values, largest score and sum of weights of a row.
    fn result(&self, dim: usize, row: usize) -> (&[f32], f32, f32) {
        (&self.sums[row * padded(dim)..][..dim], self.max[row], self.total[row])
    }
}
