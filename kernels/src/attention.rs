//! Paged attention over f16 keys and values, f32 arithmetic, online softmax.

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

/// Adds `bias` (ln of an emphasis weight) to the scores of keys at positions `start..end`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BiasSpan {
    /// First key position.
    pub start: u32,
    /// Past the last key position.
    pub end: u32,
    /// Added to the scaled score.
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
pub fn attention(isa: Isa, pool: &Pool, shape: &AttentionShape, kv: &KvLayer, block_size: usize, q: &[f32], stride: usize, sequences: &[SequenceView<'_>], out: &mut [f32]) -> Result<(), PoolError> { unimplemented!() }

/// Attention mass of one query row (`heads * head_dim`, rotated) over key spans, averaged over `heads_used`:
/// softmax over the keys the row sees, summed per span. `position` is the row's own.
#[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
pub fn attention_mass(isa: Isa, shape: &AttentionShape, kv: &KvLayer, block_size: usize, q: &[f32], position: usize, blocks: &[u32], heads_used: &[usize], spans: &[std::ops::Range<u32>], out: &mut [f32]) { unimplemented!() }
