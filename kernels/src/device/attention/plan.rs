//! What is reckoned before a launch: how keys are split, how large grids and workspaces are.

use super::{KernelDim, ring_bytes};
use crate::attention::AttentionShape;
use crate::device::kv::DeviceKvKind;
use crate::device::{DeviceError, DeviceLimits};

/// Query heads of an item of work: rows of a matrix product.
const ITEM_HEADS: usize = 16;
/// Keys a warp takes at a time.
const WARP_KEYS: usize = 16;
/// Keys of a split, at least.
const SPLIT_KEYS: usize = 256;
/// Splits of a row, at most.
pub(super) const SPLITS: usize = 32;
/// Splits begin at a multiple of as many keys.
const SPLIT_START: usize = 64;
/// Warps of a block, where their rings fit into shared memory.
const WARPS: usize = 4;
/// Blocks at once on a multiprocessor, at most: registers bound them.
const RESIDENT: usize = 4;
/// What the device itself takes of shared memory for each block.
const SHARED_OF_BLOCK: usize = 1024;

/// How many splits a row of `context` tokens has, its own included. As `splits_of` of `attend_decode.cu`.
pub(super) fn splits(context: usize, window: Option<u32>) -> usize {
    let Some(position) = context.checked_sub(1) else {
        return 0;
    };
    let first = window.map_or(0, |window| context.saturating_sub(window as usize));
    debug_assert!(first <= position, "a window of no keys");
    let span = context - first / SPLIT_START * SPLIT_START;
    let mut keys = SPLIT_KEYS;
    while keys * SPLITS < span {
        keys *= 2;
    }
    span.div_ceil(keys)
}

/// The most splits of any row of up to `context` tokens.
fn most_splits(context: usize, window: Option<u32>) -> usize {
    let span = window.map_or(context, |window| context.min(window as usize + SPLIT_START - 1));
    span.div_ceil(SPLIT_KEYS).min(SPLITS)
}

/// How rows of the decode path are shared among blocks of threads, for as many rows as a bucket has and layers of one window.
///
/// The grid does not depend on contexts, which lie in the device's memory: it is as many blocks as the device runs at once,
/// and each takes items from a list ([`MetaLayout::pack`](super::MetaLayout::pack) writes it) until there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DecodePlan {
    /// Rows, those that only fill the bucket up included.
    pub rows: usize,
    /// Largest context of a row.
    pub max_context: usize,
    /// Keys a query sees.
    pub window: Option<u32>,
    /// Items there can be: splits of all rows.
    pub capacity: usize,
    /// Blocks of the grid.
    pub(super) blocks: usize,
    /// Threads of a block.
    pub(super) threads: u32,
    /// Bytes of shared memory of a block.
    pub(super) shared_bytes: usize,
    /// Query heads and dimensions it was made for.
    pub(super) heads: (usize, usize, usize),
    pub(super) dim: KernelDim,
    pub(super) kind: DeviceKvKind,
}

impl DecodePlan {
    /// For `rows` rows of at most `max_context` tokens.
    ///
    /// # Errors
    /// Heads of a size no kernel takes, or more shared memory than there is.
    pub fn new(
        limits: &DeviceLimits,
        shape: &AttentionShape,
        kind: DeviceKvKind,
        rows: usize,
        max_context: usize,
    ) -> Result<Self, DeviceError> {
        let dim = KernelDim::of(shape.head_dim)?;
        if shape.kv_heads == 0 || !shape.heads.is_multiple_of(shape.kv_heads) {
            return Err(DeviceError::Shape("heads are no multiple of those of keys".to_owned()));
        }
        let capacity = rows * most_splits(max_context, shape.window);
        let bytes = |warps: usize| {
            let states = (warps + 1) * ITEM_HEADS * 2 * size_of::<f32>();
            warps * ring_bytes(dim, WARP_KEYS, kind) + states
        };
        let most = limits.shared_bytes as usize;
        let fitting =
            (1..=WARPS).rev().find(|&warps| warps.is_power_of_two() && bytes(warps) <= most);
        let Some(warps) = fitting else {
            return Err(DeviceError::Shape(format!("{most} bytes of shared memory are too few")));
        };
        let shared_bytes = bytes(warps);
        let resident =
            ((most + SHARED_OF_BLOCK) / (shared_bytes + SHARED_OF_BLOCK)).clamp(1, RESIDENT);
        let units = capacity * shape.kv_heads * (shape.heads / shape.kv_heads).div_ceil(ITEM_HEADS);
        Ok(Self {
            rows,
            max_context,
            window: shape.window,
            capacity,
            blocks: units.min(resident * limits.multiprocessors.max(1) as usize),
            threads: warps as u32 * 32,
            shared_bytes,
            heads: (shape.heads, shape.kv_heads, shape.head_dim),
            dim,
            kind,
        })
    }

    /// Numbers of its list of items: how many there are, the first of each row, the items.
    pub fn item_words(&self) -> usize {
        1 + self.rows + self.capacity
    }

    /// f32 numbers of workspace: what each split made, for the merge. One workspace does for all layers, one after the other.
    pub fn workspace(&self) -> usize {
        let (heads, _, head_dim) = self.heads;
        self.capacity * heads * (head_dim + 2)
    }

    /// Writes the list of items of rows with these contexts to `words`, [`DecodePlan::item_words`] numbers; rows beyond
    /// them have none.
    pub(super) fn list(&self, contexts: &[usize], words: &mut Vec<u32>) {
        let start = words.len();
        words.resize(start + 1 + self.rows, 0);
        let mut items = 0;
        for (row, &context) in contexts.iter().enumerate() {
            words[start + 1 + row] = items;
            for split in 0..splits(context, self.window) {
                words.push((row * SPLITS + split) as u32);
                items += 1;
            }
        }
        words[start] = items;
        words.resize(start + self.item_words(), 0);
    }
}

/// Which kernel computes the rows of prompts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PrefillPath {
    /// The fastest there is for the device and the layer.
    #[default]
    Auto,
    /// Products of a warp, on every device.
    Mma,
    /// Products of four warps at once, on devices of capability 9.0 alone; layers it does not take go the other way.
    Warpgroup,
}

impl PrefillPath {
    /// Whether the layer is computed by products of four warps: heads of 64 or 128 dimensions, keys in bfloat16.
    pub(super) fn warpgroup(
        self,
        limits: &DeviceLimits,
        shape: &AttentionShape,
        kind: DeviceKvKind,
    ) -> bool {
        let group = shape.heads / shape.kv_heads.max(1);
        let takes = matches!(shape.head_dim, 64 | 128)
            && kind == DeviceKvKind::Bf16
            && group <= WARPGROUP_ROWS;
        takes
            && match self {
                Self::Auto => limits.capability == (9, 0),
                // The host emulates it.
                Self::Warpgroup => matches!(limits.capability, (9, 0) | (0, 0)),
                Self::Mma => false,
            }
    }
}

/// Rows of a block's product, each a row of the batch and one of the query heads that share keys.
pub(super) const MMA_ROWS: usize = 64;
/// The same, where two groups of four warps have one each.
pub(super) const WARPGROUP_ROWS: usize = 128;

/// Rows of the batch that make a tile of the prefill path: what [`MetaLayout::tile_rows`](super::MetaLayout::tile_rows) is to
/// be for this layer. Smaller tiles are computed as well; of larger ones the
/// rows beyond are left out.
pub fn prefill_rows(
    limits: &DeviceLimits,
    shape: &AttentionShape,
    kind: DeviceKvKind,
    path: PrefillPath,
) -> usize {
    let rows = if path.warpgroup(limits, shape, kind) { WARPGROUP_ROWS } else { MMA_ROWS };
    rows / (shape.heads / shape.kv_heads.max(1)).clamp(1, rows)
}
