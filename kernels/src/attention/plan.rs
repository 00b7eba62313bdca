//! How a ragged batch is cut into items of work.
//!
//! Cuts depend on the sequence and the shape alone, never on the batch or the number of threads: so do the
//! bits of the result.

use std::ops::Range;

use super::{AttentionShape, SequenceView};

/// Query rows times heads of a group in an item: what one conversion of keys and values is shared by.
pub(super) const ROWS: usize = 96;

/// Items a sequence is cut into at least, its keys permitting, so that a long one alone fills the workers.
const ITEMS: usize = 8;

/// Some query rows of a sequence, all heads of one key/value head, some of the keys.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) sequence: usize,
    pub(super) kv_head: usize,
    /// Rows of the sequence.
    pub(super) rows: Range<usize>,
    /// Key positions.
    pub(super) keys: Range<usize>,
    /// Where its partial result goes, counted in rows x heads; `None` if it sees all keys of its rows.
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
    pub(super) fn new(shape: &AttentionShape, sequences: &[SequenceView<'_>]) -> Self {
        let mut plan = Self::default();
        for (index, sequence) in sequences.iter().enumerate() {
            plan.add(shape, index, sequence);
        }
        let group = shape.heads / shape.kv_heads;
        plan.items.sort_by_key(|item| {
            std::cmp::Reverse(item.keys.len() * (item.rows.len() * group + 4)) // 4: reading the keys
        });
        plan
    }

    fn add(&mut self, shape: &AttentionShape, index: usize, sequence: &SequenceView<'_>) {
        let group = shape.heads / shape.kv_heads;
        let height = (ROWS / group).max(1);
        let tiles = sequence.rows.div_ceil(height);
        for first in (0..sequence.rows).step_by(height) {
            let rows = first..(first + height).min(sequence.rows);
            let base = sequence.context - sequence.rows;
            let keys = shape.visible(base + rows.start).start..base + rows.end;
            let split = split_len(shape, rows.len() * group, keys.len(), tiles * shape.kv_heads);
            let splits = keys.len().div_ceil(split);
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
                for start in keys.clone().step_by(split) {
                    let keys = start..(start + split).min(keys.end);
                    self.items.push(Item { keys, partial: Some(self.partials), ..whole.clone() });
                    self.partials += rows.len() * group;
                }
                self.merges.push(Merge { item: whole, first_partial, splits });
            }
        }
    }
}

/// Keys per item.
fn split_len(shape: &AttentionShape, rows: usize, keys: usize, items: usize) -> usize {
    if rows <= super::avx2::NARROW {
        // Bound by memory: about 64 KiB of keys and values each, a few microseconds of work.
        return (16 * 1024 / shape.head_dim).clamp(64, 512).next_multiple_of(64);
    }
    let splits = ITEMS.div_ceil(items);
    keys.div_ceil(splits).next_multiple_of(64).max(512)
}
