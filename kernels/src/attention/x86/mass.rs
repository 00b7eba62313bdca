//! The softmax weights of one query, for the mass of attention on spans.

use std::ops::Range;

use super::{KeyTile, SCRATCH, TILE, scores::scores};
use crate::Isa;
use crate::attention::{AttentionShape, Keys};

/// Softmax weights of one head's query over the keys in `seen`.
///
/// # Safety
/// The machine has `isa`, AVX2, FMA and F16C at least; the keys' slots were checked.
pub(in crate::attention) unsafe fn weights(
    isa: Isa,
    shape: &AttentionShape,
    keys: Keys<'_>,
    kv_head: usize,
    q: &[f32],
    seen: Range<usize>,
) -> Vec<f32> {
    let mut weights = Vec::with_capacity(seen.len());
    SCRATCH.with_borrow_mut(|scratch| {
        scratch.start(shape.head_dim, 1);
        let scaled = scratch.queries.iter_mut().zip(q);
        scaled.for_each(|(scaled, &q)| *scaled = q * shape.scale);
        // From where a tile begins: there keys lie in groups.
        for start in (seen.start / TILE * TILE..seen.end).step_by(TILE) {
            let count = TILE.min(seen.end - start);
            let mut slots = [0; TILE];
            let slots = &mut slots[..count];
            keys.slots(start, slots);
            // SAFETY: the caller's promise; the scratch was started for one row.
            unsafe { scores(isa, 1, KeyTile { keys, head: kv_head, start, slots }, scratch) };
            weights.extend_from_slice(&scratch.scores[seen.start.max(start) - start..count]);
        }
    });
    if let Some(cap) = shape.softcap {
        weights.iter_mut().for_each(|score| *score = cap * (*score / cap).tanh());
    }
    let max = weights.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0f64;
    for score in &mut weights {
        *score = (*score - max).exp();
        total += f64::from(*score);
    }
    weights.iter_mut().for_each(|weight| *weight = (f64::from(*weight) / total) as f32);
    weights
}
