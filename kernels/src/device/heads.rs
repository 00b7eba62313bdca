//! What becomes of queries, keys and values between their product and attention.

use super::kv::{DeviceKv, DeviceKvKind};
use super::shape::{rows_of, wide};
use super::{Device, DeviceError, DeviceSlice, Launch};

const THREADS: u32 = 256;
/// Heads a block does at once, one for each warp.
const WARPS: usize = THREADS as usize / 32;
/// Blocks a multiprocessor has at once.
const BLOCKS: usize = 4;

/// The heads of a layer, and how they are made ready.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct HeadsShape {
    /// Query heads.
    pub heads: usize,
    /// Key/value heads.
    pub kv_heads: usize,
    /// Dimensions of a head, a multiple of 8.
    pub head_dim: usize,
    /// Dimensions `2j` and `2j + 1` rotate together; `j` and `j + pairs` otherwise.
    pub adjacent: bool,
    /// Multiplies cosines and sines (1 unless the scaling of positions says otherwise).
    pub magnitude: f32,
    /// Added to the mean square of a head that is normalised.
    pub eps: f32,
}

/// Adds `qkv_bias`, normalises queries and keys by `head_norms` (weights of `head_dim`, of queries and of keys), rotates
/// the first `2 * inv_freq.len()` dimensions of both by `positions[row] * inv_freq[j]`, and puts queries to `queries`, keys
/// and values to slot `slots[row]` of `kv`. Rows of `qkv` hold all queries, then keys, then values. A row whose slot the
/// cache does not have (`u32::MAX`) is written to `queries` only. No two rows have the same slot.
///
/// A row's bits do not depend on the other rows.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
#[expect(clippy::too_many_arguments, reason = "plain slices, as every kernel takes")]
pub fn heads(
    device: &Device,
    shape: &HeadsShape,
    qkv: DeviceSlice<'_, u16>,
    qkv_bias: Option<DeviceSlice<'_, f32>>,
    head_norms: Option<(DeviceSlice<'_, f32>, DeviceSlice<'_, f32>)>,
    inv_freq: DeviceSlice<'_, f32>,
    positions: DeviceSlice<'_, u32>,
    slots: DeviceSlice<'_, u32>,
    queries: DeviceSlice<'_, u16>,
    kv: &DeviceKv,
) -> Result<(), DeviceError> {
    let &HeadsShape { heads, kv_heads, head_dim, adjacent, magnitude, eps } = shape;
    let (all, pairs) = (heads + 2 * kv_heads, inv_freq.len());
    if !head_dim.is_multiple_of(8) || 2 * pairs > head_dim {
        let why = format!("{pairs} pairs of {head_dim} dimensions rotate");
        return Err(DeviceError::Shape(why));
    }
    if (kv.kv_heads, kv.head_dim) != (kv_heads, head_dim) {
        return Err(DeviceError::Shape("a cache of other heads".to_owned()));
    }
    kv.check()?;
    let rows = rows_of(qkv, all * head_dim, "queries, keys and values")?;
    positions.expect_len(rows, "positions")?;
    slots.expect_len(rows, "slots")?;
    queries.expect_len(rows * heads * head_dim, "queries")?;
    let mut starts = [qkv.address(), queries.address(), 0, 0, 0];
    if let Some(bias) = qkv_bias {
        bias.expect_len(all * head_dim, "biases of heads")?;
        starts[2] = bias.address();
    }
    if let Some((query_norm, key_norm)) = head_norms {
        query_norm.expect_len(head_dim, "the norm of queries")?;
        key_norm.expect_len(head_dim, "the norm of keys")?;
        (starts[3], starts[4]) = (query_norm.address(), key_norm.address());
    }
    let each = heads_of_a_block(rows, all, device.limits().multiprocessors as usize);
    let shared = (2 * pairs).next_multiple_of(4) + WARPS * head_dim;
    let launch = Launch::plane(rows, all.div_ceil(each), THREADS).shared(shared * size_of::<f32>());
    let scales = [&kv.key_scales, &kv.value_scales].map(|s| s.as_ref().map(|s| s.as_slice()));
    let arguments = [
        qkv.into(),
        qkv_bias.into(),
        head_norms.map(|norms| norms.0).into(),
        head_norms.map(|norms| norms.1).into(),
        inv_freq.into(),
        positions.into(),
        slots.into(),
        queries.into(),
        kv.keys.as_slice().into(),
        kv.values.as_slice().into(),
        scales[0].into(),
        scales[1].into(),
        heads.into(),
        kv_heads.into(),
        head_dim.into(),
        pairs.into(),
        adjacent.into(),
        magnitude.into(),
        eps.into(),
        kv.block_size.into(),
        kv.slots().into(),
        (kv.kind == DeviceKvKind::F8).into(),
        each.into(),
        wide(head_dim, starts).into(),
    ];
    // SAFETY: a row of the grid has one row of all slices; what it writes to the cache lies in a slot the cache has.
    unsafe { device.launch("heads", launch, &arguments) }
}

/// Heads of one row that share a block, and with it the row's angles: all of them, unless there are too few rows to keep
/// the device busy.
fn heads_of_a_block(rows: usize, all: usize, multiprocessors: usize) -> usize {
    let blocks = (multiprocessors * BLOCKS).div_ceil(rows.max(1));
    all.div_ceil(blocks.max(1)).next_multiple_of(WARPS)
}

#[cfg(test)]
mod tests {
    use super::heads_of_a_block;

    #[test]
    fn few_rows_are_spread_and_many_share_their_angles() {
        assert_eq!(heads_of_a_block(1, 48, 132), 8);
        assert_eq!(heads_of_a_block(0, 48, 132), 8);
        assert_eq!(heads_of_a_block(256, 48, 132), 16);
        assert_eq!(heads_of_a_block(10_000, 48, 132), 48);
        assert_eq!(heads_of_a_block(10_000, 5, 1), 8);
    }
}
