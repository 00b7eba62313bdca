//! Attention over paged keys and values.

use super::clock::seconds;
use super::{Amount, Dimensions, Extent, Measured, data};
use crate::device::attention::{
    DecodePlan, MetaLayout, MetaRanges, PrefillPath, SequenceMeta, attend_decode, attend_prefill,
    prefill_rows,
};
use crate::device::kv::{DeviceKv, DeviceKvKind};
use crate::device::{Device, DeviceError, DeviceVec};

/// Tokens of a block of the cache.
const BLOCK: usize = 32;
/// Most times that keys and values are doubled so as not to be found in a cache.
const MOST_COPIES: usize = 64;

/// A step's numbers on the device.
struct Words {
    words: DeviceVec<u32>,
    ranges: MetaRanges,
}

/// `rows` sequences of `keys` tokens, one row each.
pub(super) fn decode(
    device: &Device,
    sizes: &Dimensions,
    kind: DeviceKvKind,
    rows: usize,
    keys: usize,
    extent: &Extent,
) -> Result<Measured, DeviceError> {
    let shape = sizes.attention();
    let (each, block_bytes) = (keys.div_ceil(BLOCK), block_bytes(sizes, kind));
    let copies = (extent.rotated_bytes / (rows * each * block_bytes)).clamp(1, MOST_COPIES);
    let kv = cache(device, sizes, kind, copies * rows * each)?;
    let plan = DecodePlan::new(device.limits(), &shape, kind, rows, keys)?;
    let layout = MetaLayout {
        decode: std::slice::from_ref(&plan),
        tile_rows: 1,
        bias_spans: 0,
        block_size: BLOCK,
    };
    let blocks = data::Noise::new(6).shuffled(kv.blocks);
    let steps = blocks.chunks_exact(rows * each).map(|blocks| {
        let sequences: Vec<_> = (blocks.chunks_exact(each).enumerate())
            .map(|(row, blocks)| SequenceMeta {
                first_row: row,
                rows: 1,
                context: keys,
                blocks,
                bias: &[],
                decode: true,
            })
            .collect();
        upload(device, &layout, &sequences)
    });
    let steps = steps.collect::<Result<Vec<_>, _>>()?;
    let queries = data::halves(device, rows * shape.heads * shape.head_dim)?;
    let out = DeviceVec::<u16>::new(device, queries.len())?;
    let workspace = DeviceVec::<f32>::new(device, plan.workspace())?;
    let call = |at: usize| {
        let Words { words, ranges } = &steps[at % steps.len()];
        let part = |range: &std::ops::Range<usize>| words.slice(range.clone());
        let items = ranges.items.first().map_or(words.slice(0..0), part);
        attend_decode(
            device,
            &shape,
            &kv,
            queries.as_slice(),
            part(&ranges.rows),
            items,
            part(&ranges.tables),
            part(&ranges.biases),
            &plan,
            workspace.as_slice(),
            out.as_slice(),
        )
    };
    let seconds = seconds(device, extent, call)?;
    let read = rows * keys * (block_bytes / BLOCK);
    Ok(Measured { seconds, amount: Amount::Bytes((read + queries.bytes() + out.bytes()) as f64) })
}

/// A prompt of `rows` tokens.
pub(super) fn prefill(
    device: &Device,
    sizes: &Dimensions,
    path: PrefillPath,
    rows: usize,
    extent: &Extent,
) -> Result<Measured, DeviceError> {
    let (shape, kind) = (sizes.attention(), DeviceKvKind::Bf16);
    let kv = cache(device, sizes, kind, rows.div_ceil(BLOCK))?;
    let layout = MetaLayout {
        decode: &[],
        tile_rows: prefill_rows(device.limits(), &shape, kind, path),
        bias_spans: 0,
        block_size: BLOCK,
    };
    let blocks = data::Noise::new(7).shuffled(kv.blocks);
    let (first_row, context, decode) = (0, rows, false);
    let sequence = SequenceMeta { first_row, rows, context, blocks: &blocks, bias: &[], decode };
    let Words { words, ranges } = upload(device, &layout, &[sequence])?;
    let queries = data::halves(device, rows * shape.heads * shape.head_dim)?;
    let out = DeviceVec::<u16>::new(device, queries.len())?;
    let part = |range: &std::ops::Range<usize>| words.slice(range.clone());
    let call = |_| {
        let (tiles, tables, biases) =
            (part(&ranges.tiles), part(&ranges.tables), part(&ranges.biases));
        let (from, to) = (queries.as_slice(), out.as_slice());
        attend_prefill(device, &shape, &kv, from, tiles, tables, biases, path, to)
    };
    let seconds = seconds(device, extent, call)?;
    // Scores and sums of the keys up to a row's own.
    let pairs = rows as f64 * (rows + 1) as f64 / 2.0;
    let operations = 4.0 * (shape.heads * shape.head_dim) as f64 * pairs;
    Ok(Measured { seconds, amount: Amount::Operations(operations) })
}

fn block_bytes(sizes: &Dimensions, kind: DeviceKvKind) -> usize {
    DeviceKv::bytes_per_block(kind, sizes.kv_heads, sizes.head_dim, BLOCK)
}

/// A cache full of random numbers.
fn cache(
    device: &Device,
    sizes: &Dimensions,
    kind: DeviceKvKind,
    blocks: usize,
) -> Result<DeviceKv, DeviceError> {
    let kv = DeviceKv::new(device, kind, sizes.kv_heads, sizes.head_dim, BLOCK, blocks)?;
    for elements in [&kv.keys, &kv.values] {
        let pattern = match kind {
            DeviceKvKind::Bf16 => data::half_bytes(elements.len()),
            DeviceKvKind::F8 => data::codes(elements.len()),
        };
        data::repeat(elements.as_slice(), &pattern)?;
    }
    for scales in kv.key_scales.iter().chain(&kv.value_scales) {
        data::repeat(scales.as_slice(), &[0.5])?;
    }
    Ok(kv)
}

fn upload(
    device: &Device,
    layout: &MetaLayout<'_>,
    sequences: &[SequenceMeta<'_>],
) -> Result<Words, DeviceError> {
    let mut words = Vec::new();
    let ranges = layout.pack(sequences, &mut words)?;
    Ok(Words { words: DeviceVec::from_slice(device, &words)?, ranges })
}
