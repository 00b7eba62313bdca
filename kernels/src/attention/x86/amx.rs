//! Attention on AMX: scores of a segment of keys and weighted sums of its values are products of bfloat16 tiles.
//!
//! Sixteen rows of queries meet sixteen keys over 32 dimensions in one instruction, and sixteen rows of weights meet
//! 32 keys' values in sixteen dimensions. A row's sums are the same in any company, so decode and prefill take this one path.

mod operands;
mod softmax;

use std::arch::asm;
use std::cell::Cell;
use std::ops::Range;

use operands::{Operands, Tile};

use super::{Batch, Item, Scratch, padded};
use crate::amx::{ROW, ROWS, Tiles};
use crate::attention::Keys;
use crate::attention::plan::SEGMENT;

/// Keys that a row of weights grows by: four tiles of scores.
const STEP: usize = 4 * ROWS;

/// Keys of a tile of values.
const DEPTH: usize = 2 * ROWS;

thread_local! {
    /// Kept between items: at most ~600 KiB for heads of 256 dimensions.
    static OPERANDS: Cell<Operands> = Cell::default();
}

/// The queries of an item, ready to be multiplied, on a thread whose tiles are configured.
pub(super) struct Queries {
    operands: Cell<Operands>,
    _tiles: Tiles,
}

impl Queries {
    /// Takes in `rows` scaled queries, each `dim` long.
    ///
    /// # Safety
    /// The machine has AMX, and no tiles are held on this thread.
    pub(super) unsafe fn new(dim: usize, queries: &[f32], rows: usize) -> Self {
        let mut operands = OPERANDS.take();
        operands.set_queries(dim, queries, rows);
        // SAFETY: the caller's promise.
        let tiles = unsafe { Tiles::new(&[(ROWS as u8, ROW as u16); 8]) };
        Self { operands: Cell::new(operands), _tiles: tiles }
    }
}

impl Drop for Queries {
    fn drop(&mut self) {
        OPERANDS.set(self.operands.take());
    }
}

impl Batch<'_> {
    /// Weighs the values of the keys `segment` among themselves.
    ///
    /// # Safety
    /// The machine has AMX; the scratch was started with the item's rows, and slots were checked.
    pub(super) unsafe fn tiled_segment(
        &self,
        item: &Item,
        segment: Range<usize>,
        keys: Keys<'_>,
        queries: &Queries,
        scratch: &mut Scratch,
    ) {
        let mut operands = queries.operands.take();
        // SAFETY: the caller's promise.
        unsafe {
            operands.set_segment(keys, item.kv_head, segment.clone());
            for first in (0..item.rows.len() * self.group()).step_by(ROWS) {
                self.sixteen(item, segment.clone(), first, &mut operands, scratch);
            }
        }
        queries.operands.set(operands);
    }

    /// Sixteen rows from `first` on.
    ///
    /// # Safety
    /// As [`Batch::tiled_segment`]; the operands are those of the item and the segment.
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16")]
    unsafe fn sixteen(
        &self,
        item: &Item,
        segment: Range<usize>,
        first: usize,
        operands: &mut Operands,
        scratch: &mut Scratch,
    ) {
        let (dim, group) = (self.shape.head_dim, self.group());
        let sequence = &self.sequences[item.sequence];
        let base = sequence.context - sequence.rows + item.rows.start;
        let rows = ROWS.min(item.rows.len() * group - first);
        let steps = segment.len().div_ceil(STEP);
        // SAFETY: `set_segment` made room for whole steps of keys, `set_queries` for whole tiles of rows.
        unsafe {
            for step in 0..steps {
                scores(operands, first, step);
            }
            for row in 0..rows {
                let visible = self.shape.visible(base + (first + row) / group);
                let from = visible.start.clamp(segment.start, segment.end) - segment.start;
                let to = visible.end.clamp(segment.start, segment.end) - segment.start;
                let operands = operands.row(row, steps * STEP);
                (scratch.max[first + row], scratch.total[first + row]) =
                    softmax::row(self.shape, sequence.bias, segment.start, from..to, operands);
            }
            // Rows past the last hold weights of earlier ones: their sums are not used.
            for d in (0..padded(dim)).step_by(4 * ROWS) {
                sums(operands, d, steps * STEP / DEPTH);
            }
            for row in 0..rows {
                scratch.sums[(first + row) * padded(dim)..][..dim]
                    .copy_from_slice(&operands.sums(row)[..dim]);
            }
        }
    }
}

/// Scores of the sixteen rows from `first` on against four tiles of keys, those of step `step`.
///
/// # Safety
/// The machine has AMX and this thread's tiles are configured whole; the operands have these rows and keys.
unsafe fn scores(operands: &mut Operands, first: usize, step: usize) {
    let depth = operands.key_depth();
    let (q, q_stride) = operands.queries(first);
    let keys: [*const Tile; 4] = std::array::from_fn(|i| operands.keys(4 * step + i));
    let out = operands.scores(step * STEP);
    // SAFETY: the caller's promise; the state of the tiles is ours from block to block.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem)
        );
        for d in 0..depth {
            asm!(
                "tileloadd tmm4, [{q} + {q_stride}]",
                "tileloadd tmm5, [{k0} + {row}]",
                "tileloadd tmm6, [{k1} + {row}]",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tileloadd tmm5, [{k2} + {row}]",
                "tdpbf16ps tmm1, tmm4, tmm6",
                "tileloadd tmm6, [{k3} + {row}]",
                "tdpbf16ps tmm2, tmm4, tmm5",
                "tdpbf16ps tmm3, tmm4, tmm6",
                q = in(reg) q.cast::<u8>().add(d * ROW),
                q_stride = in(reg) q_stride,
                k0 = in(reg) keys[0].add(d),
                k1 = in(reg) keys[1].add(d),
                k2 = in(reg) keys[2].add(d),
                k3 = in(reg) keys[3].add(d),
                row = in(reg) ROW,
                options(nostack, readonly, preserves_flags)
            );
        }
        asm!(
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 64], tmm1",
            "tilestored [{out} + {stride} + 128], tmm2",
            "tilestored [{out} + {stride} + 192], tmm3",
            out = in(reg) out,
            stride = in(reg) SEGMENT * size_of::<f32>(),
            options(nostack, preserves_flags)
        );
    }
}

/// Sums over `depth` tiles of keys of weights by values, in 64 dimensions from `d` on.
///
/// # Safety
/// As [`scores`].
unsafe fn sums(operands: &mut Operands, d: usize, depth: usize) {
    let (weights, values, stride) =
        (operands.weights(), operands.values(d), operands.value_stride());
    let out = operands.sums_at(d);
    // SAFETY: the caller's promise.
    unsafe {
        asm!(
            "tilezero tmm0",
            "tilezero tmm1",
            "tilezero tmm2",
            "tilezero tmm3",
            options(nostack, nomem)
        );
        for k in 0..depth {
            asm!(
                "tileloadd tmm4, [{p} + {p_stride}]",
                "tileloadd tmm5, [{v} + {stride}]",
                "tileloadd tmm6, [{v} + {stride} + 64]",
                "tdpbf16ps tmm0, tmm4, tmm5",
                "tileloadd tmm5, [{v} + {stride} + 128]",
                "tdpbf16ps tmm1, tmm4, tmm6",
                "tileloadd tmm6, [{v} + {stride} + 192]",
                "tdpbf16ps tmm2, tmm4, tmm5",
                "tdpbf16ps tmm3, tmm4, tmm6",
                p = in(reg) weights.cast::<u8>().add(k * ROW),
                p_stride = in(reg) SEGMENT * size_of::<u16>(),
                v = in(reg) values.cast::<u8>().add(k * ROWS * stride),
                stride = in(reg) stride,
                options(nostack, readonly, preserves_flags)
            );
        }
        asm!(
            "tilestored [{out} + {stride}], tmm0",
            "tilestored [{out} + {stride} + 64], tmm1",
            "tilestored [{out} + {stride} + 128], tmm2",
            "tilestored [{out} + {stride} + 192], tmm3",
            out = in(reg) out,
            stride = in(reg) stride,
            options(nostack, preserves_flags)
        );
    }
}
