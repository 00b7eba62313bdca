//! How a ragged batch is cut into items of work.
//!
//! However it is cut, a row goes over its keys segment by segment, and segments begin at fixed positions: so
//! its bits depend on neither cuts nor company nor threads.

use std::ops::Range;

use super::x86::{FEW, TILE};
use super::{AttentionShape, SequenceView};
use crate::Isa;

/// Query rows times heads of a group in an item: what one conversion of keys and values is shared by. What they need
/// beside it should stay in the second-level cache.
pub(super) fn rows(isa: Isa) -> usize {
    // Where tiles multiply, converting is dear beside it; the caches of such machines are larger.
    if isa.amx() { 256 } else { 96 }
}

/// Keys that are weighed among themselves before they meet those of other segments.
pub(super) const SEGMENT: usize = 256;

/// Items a sequence is cut into at least, its keys permitting, so that a long one alone fills the workers.
const ITEMS: usize = 8;

/// Some query rows of a sequence, all heads of one key/value head, some of the keys.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    /// Rows of the sequence.
    pub(super) rows: Range<usize>,
    /// Key positions. They begin with a tile, and a segment but for the first of all.
    pub(super) keys: Range<usize>,
    /// Where its partial result goes, counted in rows x heads: its keys are of one segment then. `None` if it sees
    /// all keys of its rows.
    pub(super) partial: Option<usize>,
}

/// Partial results that make up some rows: equal in shape, one after another.
#[derive(Debug, Clone)]
pub(super) struct Merge {
    pub(super) item: Item,
    pub(super) first_partial: usize,
    pub(super) splits: usize,
}

/// All work of a batch.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// Dearest first, so that the last item to finish is a small one.
    pub(super) items: Vec<Item>,
    pub(super) merges: Vec<Merge>,
    /// Rows x heads of all partial results.
    pub(super) partials: usize,
}

impl Plan {
    /// Items of up to `rows` rows.
    pub(super) fn new(shape: &AttentionShape, sequences: &[SequenceView<'_>], rows: usize) -> Self {
        let mut plan = Self::default();
        for (index, sequence) in sequences.iter().enumerate() {
            plan.add(shape, index, sequence, rows);
        }
        let group = shape.heads / shape.kv_heads;
        plan.items.sort_by_key(|item| {
            std::cmp::Reverse(item.keys.len() * (item.rows.len() * group + 4)) // 4: reading the keys
        });
        plan
    }

    fn add(
        &mut self,
        shape: &AttentionShape,
        index: usize,
        sequence: &SequenceView<'_>,
        rows: usize,
    ) {
        let group = shape.heads / shape.kv_heads;
        let height = (rows / group).max(1);
        let tiles = sequence.rows.div_ceil(height);
        for first in (0..sequence.rows).step_by(height) {
            let rows = first..(first + height).min(sequence.rows);
            let base = sequence.context - sequence.rows;
            let first_key = shape.visible(base + rows.start).start / TILE * TILE;
            let keys = first_key..base + rows.end;
            let count = segments(keys.clone()).count();
            // Few rows are bound by memory and long ones would leave workers idle.
            let few = rows.len() * group <= FEW || tiles * shape.kv_heads < ITEMS;
            let splits = if few { count } else { 1 };
            for kv_head in 0..shape.kv_heads {
                let whole = Item {
                    sequence: index,
                    kv_head,
                    rows: rows.clone(),
                    keys: keys.clone(),
                    partial: None,
                };
                if splits == 1 {
                    self.items.push(whole);
                    continue;
                }
                let first_partial = self.partials;
                for keys in segments(keys.clone()) {
                    self.items.push(Item { keys, partial: Some(self.partials), ..whole.clone() });
                    self.partials += rows.len() * group;
                }
                self.merges.push(Merge { item: whole, first_partial, splits });
            }
        }
    }
}

/// `keys`, cut where segments begin.
pub(super) fn segments(keys: Range<usize>) -> impl Iterator<Item = Range<usize>> {
    let mut start = keys.start;
    std::iter::from_fn(move || {
        let end = ((start / SEGMENT + 1) * SEGMENT).min(keys.end);
        let segment = start..end;
        start = end;
        (!segment.is_empty()).then_some(segment)
    })
}
