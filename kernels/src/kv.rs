//! The paged KV cache of one layer.

use crate::{Isa, Pool, PoolError};

/// Keys and values of one layer in f16: `[kv_head][slot][head_dim]`, a slot being
/// `block * block_size + offset`.
#[derive(Debug)]
pub struct KvLayer {}

impl KvLayer {
    /// Zeroed storage for `slots` tokens of `kv_heads` heads of `head_dim` (untouched pages
    /// stay unmapped until first written).
    pub fn new(kv_heads: usize, head_dim: usize, slots: usize) -> Self { unimplemented!() }
    /// Bytes of keys and values for one token.
    pub fn bytes_per_token(kv_heads: usize, head_dim: usize) -> usize { unimplemented!() }
    /// Writes row `i`'s key and value to `slots[i]`. Row `i` of `x` is `stride` long; its keys
    /// begin at `key_offset`, its values at `value_offset`, `kv_heads * head_dim` each.
    /// # Panics
    /// If a slot or an offset is out of bounds.
    #[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
    pub fn write(&mut self, isa: Isa, pool: &Pool, x: &[f32], stride: usize, key_offset: usize, value_offset: usize, slots: &[u32]) -> Result<(), PoolError> { unimplemented!() }
    /// Copies `len` slots from `from` to `to` (a whole block: copy-on-write).
    pub fn copy(&mut self, from: u32, to: u32, len: u32) { unimplemented!() }
    /// Fills everything with NaN (tests: a read of a slot never written shows).
    pub fn poison(&mut self) { unimplemented!() }
}
