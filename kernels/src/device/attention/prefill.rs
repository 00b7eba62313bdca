//! Rows of prompts.

use super::plan::{MMA_ROWS, WARPGROUP_ROWS};
use super::{KernelDim, PrefillPath, TILE_WORDS, cache_memory, check, ring_bytes, shape_arguments};
use crate::attention::AttentionShape;
use crate::device::kv::{DeviceKv, DeviceKvKind};
use crate::device::{Argument, Device, DeviceError, DeviceSlice, Launch};

/// `out[i, :]` = attention of the queries of row `i`, for every row in `tiles`. `queries` and `out` have rows of
/// `heads * head_dim` bfloat16 numbers, queries already rotated; rows that are in no tile stay what they are.
///
/// `tiles`, `tables` and `biases` are what [`MetaLayout::pack`](super::MetaLayout::pack) made, with tiles of at most
/// [`prefill_rows`](super::prefill_rows) rows: what is beyond them is left out.
///
/// # Errors
/// The lengths do not fit each other, more than 64 query heads share their keys, or the device failed.
#[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
pub fn attend_prefill(
    device: &Device,
    shape: &AttentionShape,
    kv: &DeviceKv,
    queries: DeviceSlice<'_, u16>,
    tiles: DeviceSlice<'_, u32>,
    tables: DeviceSlice<'_, u32>,
    biases: DeviceSlice<'_, u32>,
    path: PrefillPath,
    out: DeviceSlice<'_, u16>,
) -> Result<(), DeviceError> {
    check(shape, kv)?;
    let width = shape.heads * shape.head_dim;
    let query_rows = queries.len() / width;
    queries.expect_len(query_rows * width, "rows of queries")?;
    out.expect_len(queries.len(), "rows of attention")?;
    if !tiles.len().is_multiple_of(TILE_WORDS) {
        return Err(DeviceError::Shape(format!("{} numbers of tiles", tiles.len())));
    }
    let blocks = (tiles.len() / TILE_WORDS).saturating_mul(shape.kv_heads);
    let (kernel, launch) = match path.warpgroup(device.limits(), shape, kv.kind) {
        true => warpgroup_launch(shape, blocks),
        false => mma_launch(shape, kv.kind, blocks)?,
    };
    let arguments: Vec<Argument> = [
        &[queries.into()][..],
        &cache_memory(kv),
        &[tiles.into(), tables.into(), biases.into(), out.into()],
        &shape_arguments(shape, kv),
        &[query_rows, tables.len(), biases.len()].map(Argument::from),
    ]
    .concat();
    // SAFETY: lengths were checked. There are as many blocks as tiles and kv heads; the kernel passes over rows beyond `queries`,
    // and reads tables, spans and the cache within the lengths given.
    unsafe { device.launch(kernel, launch, &arguments) }
}

/// Products of a warp: blocks of four, tiles of 64 keys, or 32 where heads are large.
fn mma_launch(
    shape: &AttentionShape,
    kind: DeviceKvKind,
    blocks: usize,
) -> Result<(&'static str, Launch), DeviceError> {
    let group = shape.heads / shape.kv_heads;
    if group > MMA_ROWS {
        return Err(DeviceError::Shape(format!("{group} query heads for one of keys")));
    }
    let dim = KernelDim::of(shape.head_dim)?;
    let kernel = match (dim, kind) {
        (KernelDim::Of64, DeviceKvKind::Bf16) => "attend_prefill_64",
        (KernelDim::Of128, DeviceKvKind::Bf16) => "attend_prefill_128",
        (KernelDim::Of256, DeviceKvKind::Bf16) => "attend_prefill_256",
        (KernelDim::Of64, DeviceKvKind::F8) => "attend_prefill_64_f8",
        (KernelDim::Of128, DeviceKvKind::F8) => "attend_prefill_128_f8",
        (KernelDim::Of256, DeviceKvKind::F8) => "attend_prefill_256_f8",
    };
    // Large heads take smaller tiles, and have their queries in shared memory beside them.
    let (keys, queries) = match dim {
        KernelDim::Of256 => (32, MMA_ROWS * dim.size() * size_of::<u16>()),
        _ => (64, 0),
    };
    Ok((kernel, Launch::row(blocks, 128).shared(ring_bytes(dim, keys, kind) + queries)))
}

/// Products of four warps: two groups of them, tiles of 128 keys.
fn warpgroup_launch(shape: &AttentionShape, blocks: usize) -> (&'static str, Launch) {
    let kernel = match shape.head_dim {
        64 => "attend_prefill_sm90_64",
        _ => "attend_prefill_sm90_128",
    };
    // Queries, two tiles of keys and values, and what it takes to begin at a multiple of 1,024 bytes.
    let numbers = (WARPGROUP_ROWS + 4 * 128) * shape.head_dim;
    (kernel, Launch::row(blocks, 256).shared(numbers * size_of::<u16>() + 1024))
}
