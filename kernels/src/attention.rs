//! Paged attention over f16 keys and values, f32 arithmetic, online softmax; and attention without a cache, for
//! encoders.

mod bidirectional;
#[cfg(target_arch = "x86_64")]
mod plan;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod x86;

pub use bidirectional::{BidirectionalShape, bidirectional};

use std::ops::Range;

#[cfg(target_arch = "x86_64")]
use crate::kv::LANES;
use crate::pool::Shards;
use crate::{Isa, KvLayer, Pool, PoolError};

/// Head shapes and masking of one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionShape {
    /// Query heads; a multiple of `kv_heads`.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Dimensions of a head.
    pub head_dim: usize,
    /// Multiplies every score (usually `1 / sqrt(head_dim)`).
    pub scale: f32,
    /// Keys a query sees, itself included; `None` = all before it.
    pub window: Option<u32>,
    /// `cap * tanh(score / cap)` on scores, where the architecture asks for it.
    pub softcap: Option<f32>,
}

impl AttentionShape {
    /// Keys that the query at `position` sees.
    fn visible(&self, position: usize) -> Range<usize> {
        let start = self.window.map_or(0, |window| (position + 1).saturating_sub(window as usize));
        start..position + 1
    }
}

/// Adds `bias` (ln of an emphasis weight) to the scores of keys at positions `start..end`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasSpan {
    /// First key position.
    pub start: u32,
    /// Past the last key position.
    pub end: u32,
    /// Added to the scaled score (after the softcap, so that it multiplies the key's weight).
    pub bias: f32,
}

/// One sequence's part of a ragged batch. Its `rows` queries are the last of `context` tokens:
/// row `r` of it sits at position `context - rows + r` and sees keys at positions up to its own.
#[derive(Debug, Clone, Copy)]
pub struct SequenceView<'a> {
    /// First row in the batch.
    pub first_row: usize,
    /// Query rows.
    pub rows: usize,
    /// Tokens with KV written, this step's included.
    pub context: usize,
    /// Blocks of its KV, `ceil(context / block_size)` at least.
    pub blocks: &'a [u32],
    /// Emphasis, sorted and disjoint; empty is bit-exactly no bias.
    pub bias: &'a [BiasSpan],
}

/// `out[i, :]` = attention of row `i`'s queries. Row `i` of `q` is `stride` long and begins
/// with its `heads * head_dim` queries (already rotated); rows of `out` are `heads * head_dim`.
///
/// Work is cut into (sequence, head group, query tile or key split) items over the pool.
/// # Panics
/// If a view is inconsistent with the slices or the cache.
#[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
pub fn attention(
    isa: Isa,
    pool: &Pool,
    shape: &AttentionShape,
    kv: &KvLayer,
    block_size: usize,
    q: &[f32],
    stride: usize,
    sequences: &[SequenceView<'_>],
    out: &mut [f32],
) -> Result<(), PoolError> {
    check(shape, kv, block_size);
    let width = shape.heads * shape.head_dim;
    let mut taken = vec![false; out.len() / width];
    for s in sequences {
        assert!(s.rows <= s.context, "more rows than context");
        assert!(s.first_row + s.rows <= taken.len(), "out lacks rows");
        assert!(
            s.rows == 0 || (s.first_row + s.rows - 1) * stride + width <= q.len(),
            "q lacks rows"
        );
        check_blocks(kv, block_size, s.blocks, s.context);
        for taken in &mut taken[s.first_row..s.first_row + s.rows] {
            assert!(!std::mem::replace(taken, true), "two sequences claim a row");
        }
    }
    let out = Shards::new(out);
    let keys = |s: usize| Keys { kv, block_size, blocks: sequences[s].blocks };
    #[cfg(target_arch = "x86_64")]
    if isa.avx2() {
        return x86::Batch { isa, shape, sequences, q, stride, out }.compute(pool, keys);
    }
    let _ = isa;
    let items: Vec<(usize, usize)> =
        (0..sequences.len()).flat_map(|s| (0..sequences[s].rows).map(move |r| (s, r))).collect();
    pool.run(items.len(), |item| {
        let (s, r) = items[item];
        let sequence = &sequences[s];
        let row = sequence.first_row + r;
        // SAFETY: rows are in bounds and each belongs to one item (checked above).
        let out = unsafe { out.slice(row * width, width) };
        let position = sequence.context - sequence.rows + r;
        scalar::row(shape, keys(s), &q[row * stride..][..width], position, sequence.bias, out);
    })
}

/// Attention mass of one query row (`heads * head_dim`, rotated) over key spans, averaged over `heads_used`:
/// softmax over the keys the row sees, summed per span. `position` is the row's own.
/// # Panics
/// If the row, a head or the blocks are out of bounds, or `out` and `spans` differ in length.
#[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
pub fn attention_mass(
    isa: Isa,
    shape: &AttentionShape,
    kv: &KvLayer,
    block_size: usize,
    q: &[f32],
    position: usize,
    blocks: &[u32],
    heads_used: &[usize],
    spans: &[Range<u32>],
    out: &mut [f32],
) {
    check(shape, kv, block_size);
    check_blocks(kv, block_size, blocks, position + 1);
    assert_eq!(q.len(), shape.heads * shape.head_dim, "one row of queries");
    assert_eq!(spans.len(), out.len(), "spans and out");
    let keys = Keys { kv, block_size, blocks };
    out.fill(0.0);
    for &head in heads_used {
        assert!(head < shape.heads, "head {head} of {}", shape.heads);
        let q = &q[head * shape.head_dim..][..shape.head_dim];
        let (first, weights) = mass_weights(isa, shape, keys, head, q, position);
        for (out, span) in out.iter_mut().zip(spans) {
            let start = (span.start as usize).clamp(first, position + 1) - first;
            let end = (span.end as usize).clamp(first + start, position + 1) - first;
            *out += weights[start..end].iter().sum::<f32>() / heads_used.len() as f32;
        }
    }
}

/// The softmax weights of one head's query, and the position of the first key it sees.
fn mass_weights(
    isa: Isa,
    shape: &AttentionShape,
    keys: Keys<'_>,
    head: usize,
    q: &[f32],
    position: usize,
) -> (usize, Vec<f32>) {
    #[cfg(target_arch = "x86_64")]
    if isa.avx2() {
        let seen = shape.visible(position);
        let kv_head = head / (shape.heads / shape.kv_heads);
        // SAFETY: the machine has the features, and the caller checked the blocks.
        return (seen.start, unsafe { x86::mass::weights(isa, shape, keys, kv_head, q, seen) });
    }
    let _ = isa;
    scalar::weights(shape, keys, head, q, position, &[])
}

/// Where a sequence's keys and values are.
#[derive(Debug, Clone, Copy)]
struct Keys<'a> {
    kv: &'a KvLayer,
    block_size: usize,
    blocks: &'a [u32],
}

impl Keys<'_> {
    /// The slots of the keys from position `start` on.
    #[cfg(target_arch = "x86_64")]
    fn slots(&self, start: usize, slots: &mut [usize]) {
        let mut at = start;
        // A division for each block, not for each key.
        while let Some(rest) = slots.get_mut(at - start..).filter(|rest| !rest.is_empty()) {
            let (first, offset) = (self.slot(at), at % self.block_size);
            let inside = rest.len().min(self.block_size - offset);
            rest[..inside].iter_mut().zip(first..).for_each(|(to, slot)| *to = slot);
            at += inside;
        }
    }

    /// Whether the keys from position `start` on lie side by side, in order, by sixteens.
    #[cfg(target_arch = "x86_64")]
    fn grouped(&self, start: usize) -> bool {
        self.block_size.is_multiple_of(LANES) && start.is_multiple_of(LANES)
    }

    /// The slot of the key at `position`.
    fn slot(&self, position: usize) -> usize {
        self.blocks[position / self.block_size] as usize * self.block_size
            + position % self.block_size
    }
}

fn check(shape: &AttentionShape, kv: &KvLayer, block_size: usize) {
    assert!(block_size > 0 && shape.kv_heads > 0 && shape.head_dim > 0, "a size of 0");
    assert!(shape.heads.is_multiple_of(shape.kv_heads), "heads are no multiple of kv_heads");
    assert_eq!((shape.kv_heads, shape.head_dim), (kv.kv_heads(), kv.head_dim()), "another cache");
    assert!(shape.window != Some(0), "a window of 0 keys");
}

fn check_blocks(kv: &KvLayer, block_size: usize, blocks: &[u32], context: usize) {
    assert!(blocks.len() * block_size >= context, "blocks for {context} tokens");
    let slots = kv.slots();
    let used = &blocks[..context.div_ceil(block_size)];
    assert!(used.iter().all(|&b| (b as usize + 1) * block_size <= slots), "block out of bounds");
}

#[cfg(test)]
mod tests;
