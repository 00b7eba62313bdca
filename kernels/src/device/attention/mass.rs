//! Where rows look.

use std::ops::Range;

use super::{KernelDim, check, window};
use crate::attention::AttentionShape;
use crate::device::kv::DeviceKv;
use crate::device::{Argument, Device, DeviceError, DeviceSlice, Launch};

/// Numbers of an ask: query row, context, where its table begins, its first head and heads, its first span and spans.
const ASK_WORDS: usize = 7;
const THREADS: u32 = 256;

/// One row of which is asked where it looks.
#[derive(Debug, Clone, Copy)]
pub struct MassAsk<'a> {
    /// Its row in the batch.
    pub row: usize,
    /// Tokens up to its own, which is the last.
    pub context: usize,
    /// The blocks of its sequence.
    pub blocks: &'a [u32],
    /// Query heads to average over.
    pub heads: &'a [usize],
    /// Spans of keys to sum over; they may overlap.
    pub spans: &'a [Range<u32>],
}

/// Where what is asked lies among the numbers of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MassRanges {
    /// The asks.
    pub asks: Range<usize>,
    /// Block tables, heads and spans of all asks, each one after the other.
    pub tables: Range<usize>,
    /// See `tables`.
    pub heads: Range<usize>,
    /// See `tables`.
    pub spans: Range<usize>,
    /// The most heads of an ask.
    pub most_heads: usize,
}

impl MassRanges {
    /// Appends asks to the numbers of a step.
    ///
    /// # Errors
    /// A number is beyond 32 bits.
    pub fn pack(asks: &[MassAsk<'_>], words: &mut Vec<u32>) -> Result<Self, DeviceError> {
        let number = |value: usize| {
            u32::try_from(value)
                .map_err(|_| DeviceError::Shape(format!("{value} is beyond 32 bits")))
        };
        let (mut tables, mut heads, mut spans) = (Vec::new(), Vec::new(), Vec::new());
        let start = words.len();
        for ask in asks {
            let sizes = [
                ask.row,
                ask.context,
                tables.len(),
                heads.len(),
                ask.heads.len(),
                spans.len() / 2,
                ask.spans.len(),
            ];
            for size in sizes {
                words.push(number(size)?);
            }
            tables.extend_from_slice(ask.blocks);
            for &head in ask.heads {
                heads.push(number(head)?);
            }
            spans.extend(ask.spans.iter().flat_map(|span| [span.start, span.end]));
        }
        let mut at = words.len();
        let asked = start..at;
        let mut append = |more: Vec<u32>| {
            let from = at;
            at += more.len();
            words.extend(more);
            from..at
        };
        let (tables, heads, spans) = (append(tables), append(heads), append(spans));
        let most_heads = asks.iter().map(|ask| ask.heads.len()).max().unwrap_or(0);
        Ok(Self { asks: asked, tables, heads, spans, most_heads })
    }

    /// Spans of all asks: the numbers [`attention_mass`] makes.
    pub fn spans(&self) -> usize {
        self.spans.len() / 2
    }

    /// f32 numbers of workspace: the mass of each head.
    pub fn workspace(&self) -> usize {
        self.most_heads * self.spans()
    }
}

/// Attention mass of the rows asked for: the softmax over the keys a row sees, summed over each span and averaged over the
/// ask's heads, emphasis left out. `out` has one number for each span of all asks, in their order. `words` holds what
/// [`MassRanges::pack`] appended; `queries` are as in [`attend_prefill`](super::attend_prefill).
///
/// # Errors
/// The lengths do not fit each other, or the device failed.
#[expect(clippy::too_many_arguments, reason = "plain slices and sizes, as every kernel takes")]
pub fn attention_mass(
    device: &Device,
    shape: &AttentionShape,
    kv: &DeviceKv,
    queries: DeviceSlice<'_, u16>,
    words: DeviceSlice<'_, u32>,
    ranges: &MassRanges,
    workspace: DeviceSlice<'_, f32>,
    out: DeviceSlice<'_, f32>,
) -> Result<(), DeviceError> {
    check(shape, kv)?;
    KernelDim::of(shape.head_dim)?;
    let width = shape.heads * shape.head_dim;
    let query_rows = queries.len() / width;
    queries.expect_len(query_rows * width, "rows of queries")?;
    out.expect_len(ranges.spans(), "attention mass")?;
    workspace.expect_room(ranges.workspace(), "a workspace of attention mass")?;
    let end = [&ranges.asks, &ranges.tables, &ranges.heads, &ranges.spans].map(|range| range.end);
    words.expect_room(end.into_iter().max().unwrap_or(0), "what is asked")?;
    let part = |range: &Range<usize>| words.slice(range.clone());
    let asks = ranges.asks.len() / ASK_WORDS;
    // Masses of heads that cannot be had are none.
    workspace.first(ranges.workspace()).fill(0)?;
    let warps = (THREADS / 32) as usize;
    let launch = Launch::plane(asks, ranges.most_heads, THREADS)
        .shared((shape.head_dim + 3 * warps) * size_of::<f32>());
    let keys = kv.keys.as_slice();
    let arguments = [
        queries.into(),
        keys.into(),
        kv.key_scales.as_ref().map(|scales| scales.as_slice()).into(),
        part(&ranges.asks).into(),
        part(&ranges.tables).into(),
        part(&ranges.heads).into(),
        part(&ranges.spans).into(),
        workspace.into(),
        shape.heads.into(),
        shape.kv_heads.into(),
        shape.head_dim.into(),
        kv.block_size.trailing_zeros().into(),
        kv.blocks.into(),
        shape.scale.into(),
        shape.softcap.unwrap_or(0.0).into(),
        window(shape.window).into(),
        query_rows.into(),
        ranges.tables.len().into(),
        ranges.heads.len().into(),
        ranges.spans().into(),
    ];
    // SAFETY: lengths were checked. The kernel passes over rows, heads and spans beyond those there are, reads tables and the
    // cache within the lengths given, and writes a number for each head and span at most.
    unsafe { device.launch("attention_mass", launch, &arguments) }?;
    let arguments: [Argument; 5] = [
        part(&ranges.asks).into(),
        workspace.into(),
        out.into(),
        ranges.most_heads.into(),
        ranges.spans().into(),
    ];
    // SAFETY: as above.
    unsafe { device.launch("average_mass", Launch::row(asks, THREADS), &arguments) }
}
