//! Attention with AVX2 and above: keys and values pass once per item, shared by its rows and heads. AMX takes a
//! segment of keys at once (`amx`), the others tiles of 64 (`scores`, `softmax`, `values`).
//!
//! Whichever way scores and sums are computed on an instruction set, a row's are made of the same operations in the
//! same order, so they have the same bits however its prompt is cut and whatever runs beside it.

mod amx;
mod element;
pub(super) mod mass;
mod scores;
mod scratch;
mod softmax;
mod values;

use std::cell::{Cell, RefCell};
use std::ops::Range;

use scratch::{Part, Scratch, padded};

use super::plan::{Item, Merge, Plan, rows, segments};
use super::{AttentionShape, Keys, SequenceView};
use crate::pool::Shards;
use crate::{Isa, Pool, PoolError};

/// Keys of a tile.
pub(super) const TILE: usize = 64;

/// Rows (times heads) up to which keys and values are used as they are kept; above, a tile is converted first.
pub(super) const FEW: usize = 8;

/// Of `left` few rows, those whose sums fit the registers beside what they are multiplied by.
fn at_once(left: usize) -> usize {
    match left {
        1 => 1,
        2 | 4 => 2,
        _ => 3,
    }
}

/// Up to [`TILE`] consecutive keys of one head, and their values.
#[derive(Clone, Copy)]
struct KeyTile<'a> {
    keys: Keys<'a>,
    head: usize,
    /// Position of the first.
    start: usize,
    /// Of each.
    slots: &'a [usize],
}

impl KeyTile<'_> {
    fn dim(&self) -> usize {
        self.keys.kv.head_dim()
    }

    fn count(&self) -> usize {
        self.slots.len()
    }

    /// Whether every sixteen keys lie side by side, in order.
    fn grouped(&self) -> bool {
        self.keys.grouped(self.start)
    }

    /// Where the elements of the keys that lie beside key `i` of the tile begin: `[dim][LANES]`.
    fn group(&self, i: usize) -> *const u8 {
        self.keys.kv.key_elements(self.head, self.slots[i])
    }
}

/// A batch, its shapes checked.
pub(super) struct Batch<'a> {
    pub(super) isa: Isa,
    pub(super) shape: &'a AttentionShape,
    pub(super) sequences: &'a [SequenceView<'a>],
    pub(super) q: &'a [f32],
    pub(super) stride: usize,
    pub(super) out: Shards<f32>,
}

impl Batch<'_> {
    /// Computes everything; the machine has AVX2, FMA and F16C at least.
    pub(super) fn compute<'k>(
        &self,
        pool: &Pool,
        keys: impl Fn(usize) -> Keys<'k> + Sync,
    ) -> Result<(), PoolError> {
        let plan = Plan::new(self.shape, self.sequences, rows(self.isa));
        let width = self.shape.head_dim + 2;
        let mut partials = PARTIALS.take();
        partials.resize(partials.len().max(plan.partials * width), 0.0);
        let shards = Shards::new(&mut partials);
        let done = pool.run(plan.items.len(), |index| {
            let item = &plan.items[index];
            SCRATCH.with_borrow_mut(|scratch| {
                // SAFETY: the machine has the features.
                unsafe { self.item(item, keys(item.sequence), scratch) };
                let dim = self.shape.head_dim;
                for row in 0..item.rows.len() * self.group() {
                    let part = scratch.part(dim, row, item.partial.is_none());
                    if let Some(first) = item.partial {
                        // SAFETY: the plan gave these rows of the buffer to this item alone.
                        let out = unsafe { shards.slice((first + row) * width, width) };
                        out[..dim].copy_from_slice(part.sums);
                        (out[dim], out[dim + 1]) = (*part.max, *part.total);
                    } else {
                        let (out, inverse) = (self.out(item, row), 1.0 / *part.total);
                        out.iter_mut().zip(part.sums).for_each(|(out, sum)| *out = *sum * inverse);
                    }
                }
            });
        });
        let done = done.and_then(|()| {
            pool.run(plan.merges.len(), |index| self.merge(&plan.merges[index], &shards))
        });
        PARTIALS.set(partials);
        done
    }

    /// Query heads that share a key/value head.
    fn group(&self) -> usize {
        self.shape.heads / self.shape.kv_heads
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

    /// Combines the segments of some rows, in the order of the keys.
    fn merge(&self, merge: &Merge, partials: &Shards<f32>) {
        let dim = self.shape.head_dim;
        let rows = merge.item.rows.len() * self.group();
        for row in 0..rows {
            let (mut max, mut total) = (f32::NEG_INFINITY, 0.0);
            let sums = self.out(&merge.item, row);
            sums.fill(0.0);
            for split in 0..merge.splits {
                let at = (merge.first_partial + split * rows + row) * (dim + 2);
                // SAFETY: the items that wrote partial results are done, and each row is read by one merge.
                let (from, rest) = unsafe { partials.slice(at, dim + 2) }.split_at_mut(dim);
                let [from_max, from_total] = rest else { continue };
                let segment = Part { sums: from, max: from_max, total: from_total };
                // SAFETY: the machine has the features.
                unsafe { Part { sums, max: &mut max, total: &mut total }.add(&segment) };
            }
            let inverse = 1.0 / total;
            sums.iter_mut().for_each(|sum| *sum *= inverse);
        }
    }

    /// Leaves the sums, largest scores and totals of an item's rows in `scratch`: of its one segment, or of all.
    ///
    /// # Safety
    /// The machine has AVX2, FMA and F16C.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn item(&self, item: &Item, keys: Keys<'_>, scratch: &mut Scratch) {
        let shape = self.shape;
        let (dim, group) = (shape.head_dim, self.group());
        let sequence = &self.sequences[item.sequence];
        let rows = item.rows.len() * group;
        scratch.start(dim, rows);
        for row in 0..rows {
            let batch_row = sequence.first_row + item.rows.start + row / group;
            let head = item.kv_head * group + row % group;
            let q = &self.q[batch_row * self.stride + head * dim..][..dim];
            scratch.set_query(row, q, shape.scale);
        }
        let tiles = self.isa.amx().then(|| {
            // SAFETY: the machine has AMX, and items do not nest.
            unsafe { amx::Queries::new(dim, &scratch.queries, rows) }
        });
        for segment in segments(item.keys.clone()) {
            scratch.start_segment(dim, rows);
            // SAFETY: the features are there; the scratch was sized for these rows, and slots were checked.
            unsafe {
                match &tiles {
                    Some(queries) => self.tiled_segment(item, segment, keys, queries, scratch),
                    None => self.segment(item, segment, keys, scratch),
                }
            };
            if item.partial.is_none() {
                for row in 0..rows {
                    // SAFETY: the machine has the features.
                    unsafe { scratch.merge(dim, row) };
                }
            }
        }
    }

    /// Weighs the values of the keys `segment` among themselves.
    ///
    /// # Safety
    /// As [`Batch::item`]; the scratch has the item's queries.
    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn segment(
        &self,
        item: &Item,
        segment: Range<usize>,
        keys: Keys<'_>,
        scratch: &mut Scratch,
    ) {
        let shape = self.shape;
        let (dim, group) = (shape.head_dim, self.group());
        let sequence = &self.sequences[item.sequence];
        let rows = item.rows.len() * group;
        let base = sequence.context - sequence.rows + item.rows.start;
        for start in segment.clone().step_by(TILE) {
            let count = TILE.min(segment.end - start);
            let mut slots = [0; TILE];
            let slots = &mut slots[..count];
            keys.slots(start, slots);
            let tile = KeyTile { keys, head: item.kv_head, start, slots };
            // SAFETY: the caller's promise.
            unsafe {
                scores::scores(self.isa, rows, tile, scratch);
                for row in 0..rows {
                    let visible = shape.visible(base + row / group);
                    let from = visible.start.clamp(start, start + count) - start;
                    let to = visible.end.clamp(start, start + count) - start;
                    softmax::row(shape, sequence.bias, start, from..to, row, dim, scratch);
                }
                values::accumulate(self.isa, rows, tile, scratch);
            }
        }
    }
}

thread_local! {
    /// Partial results of the batch that this thread is in, kept for the next one. Each is a weighted sum of
    /// values, the largest score and the sum of weights.
    static PARTIALS: Cell<Vec<f32>> = Cell::default();
    /// Kept between items: at most ~600 KiB for heads of 256 dimensions, 1 MiB with AMX.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}
