//! Single rows over long contexts.

use super::KernelDim;
use super::{DecodePlan, ROW_WORDS, cache_memory, check, plan::SPLITS, shape_arguments, window};
use crate::attention::AttentionShape;
use crate::device::kv::{DeviceKv, DeviceKvKind};
use crate::device::{Argument, Device, DeviceError, DeviceSlice, Launch};

/// Warps of a block of the merge, each with a row and head of its own.
const MERGE_WARPS: usize = 4;

/// `out[i, :]` = attention of the queries of row `i`, for every row listed in `rows`. `queries` and `out` have rows of
/// `heads * head_dim` bfloat16 numbers, queries already rotated; rows that are not listed stay what they are, and
/// listed rows of context 0 become zeros.
///
/// `rows`, `items`, `tables` and `biases` are what [`MetaLayout::pack`](super::MetaLayout::pack) made, `items` the list for this
/// layer's plan. `workspace` holds [`DecodePlan::workspace`] numbers and is free again when the layer is done. All that
/// changes from step to step lies in device memory, so that a recording follows it.
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
#[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
pub fn attend_decode(
    device: &Device,
    shape: &AttentionShape,
    kv: &DeviceKv,
    queries: DeviceSlice<'_, u16>,
    rows: DeviceSlice<'_, u32>,
    items: DeviceSlice<'_, u32>,
    tables: DeviceSlice<'_, u32>,
    biases: DeviceSlice<'_, u32>,
    plan: &DecodePlan,
    workspace: DeviceSlice<'_, f32>,
    out: DeviceSlice<'_, u16>,
) -> Result<(), DeviceError> {
    check(shape, kv)?;
    let heads = (shape.heads, shape.kv_heads, shape.head_dim);
    if (plan.heads, plan.kind, plan.window) != (heads, kv.kind, shape.window) {
        return Err(DeviceError::Shape("attention: the plan is for another shape".to_owned()));
    }
    let width = shape.heads * shape.head_dim;
    let query_rows = queries.len() / width;
    queries.expect_len(query_rows * width, "rows of queries")?;
    out.expect_len(queries.len(), "rows of attention")?;
    rows.expect_len(plan.rows * ROW_WORDS, "rows of decode")?;
    items.expect_len(plan.item_words(), "items of decode")?;
    workspace.expect_room(plan.workspace(), "a workspace of decode")?;
    let kernel = match (plan.dim, plan.kind) {
        (KernelDim::Of64, DeviceKvKind::Bf16) => "attend_decode_64",
        (KernelDim::Of128, DeviceKvKind::Bf16) => "attend_decode_128",
        (KernelDim::Of256, DeviceKvKind::Bf16) => "attend_decode_256",
        (KernelDim::Of64, DeviceKvKind::F8) => "attend_decode_64_f8",
        (KernelDim::Of128, DeviceKvKind::F8) => "attend_decode_128_f8",
        (KernelDim::Of256, DeviceKvKind::F8) => "attend_decode_256_f8",
    };
    let launch = Launch::row(plan.blocks, plan.threads).shared(plan.shared_bytes);
    let (per_step, lengths) = (
        [rows.into(), items.into(), tables.into(), biases.into(), workspace.into(), out.into()],
        [query_rows, plan.rows, plan.capacity, tables.len(), biases.len()].map(Argument::from),
    );
    let arguments: Vec<Argument> = [
        &[queries.into()][..],
        &cache_memory(kv),
        &per_step,
        &shape_arguments(shape, kv),
        &lengths,
    ]
    .concat();
    // SAFETY: lengths were checked. The kernel takes as many items as the plan has at most, passes over rows beyond `rows` and
    // `queries`, reads tables, spans and the cache within the lengths given, and writes partial results of items there are.
    unsafe { device.launch(kernel, launch, &arguments) }?;

    let down = shape.heads.div_ceil(MERGE_WARPS);
    let launch = Launch::plane(plan.rows, down, MERGE_WARPS as u32 * 32);
    let arguments = [
        rows.into(),
        items.into(),
        workspace.into(),
        out.into(),
        shape.heads.into(),
        shape.head_dim.into(),
        window(shape.window).into(),
        query_rows.into(),
        plan.capacity.into(),
    ];
    // SAFETY: as above; partial results are read of items there are at most.
    unsafe { device.launch("attend_merge", launch, &arguments) }
}

/// A row's number and split share one number.
const _: () = assert!(SPLITS == 32);
